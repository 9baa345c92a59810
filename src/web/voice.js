/*
 * voice.js - speaks the answers: the server's sentences become sounds, one ahead of what is heard,
 * and are played in their order.
 *
 * The server finds the sentences ({"type":"sentence"}) and asks the voice engine for us. It hears
 * which one is being played, for the overlay. While no engine answers, nothing is asked of the server
 * either: the page is as quiet as without voice, says so in one line, and looks again now and then.
 *
 * States: off, looking, ready, absent, none (the server was started without voice).
 */
import {load, save} from './store.js';
import {addTexts, onLanguage, t} from './strings.js';

addTexts({
    ja: {
        tabVoice: '声',
        voice: '声',
        voiceLead: '返事を声で読み上げます。VOICEVOX など、同じ形で話すエンジンが使えます。',
        voiceOn: '声を出す',
        voiceOff: '声を止める',
        mute: '消音',
        unmute: '消音を解除',
        voiceSpeaker: '話す人',
        voiceDefault: 'エンジンの既定',
        voiceVolume: '音量',
        voiceSpeed: '速さ',
        voiceTry: '試しに聞く',
        voiceSample: 'こんにちは、りんねです。今日はなに話そっか？',
        voiceSwitch: '返事を声で話す',
        voiceState: {
            off: '',
            looking: '音声エンジンを探しています…',
            ready: '音声エンジンにつながっています。',
            absent: '音声エンジンが見つかりません。VOICEVOX を起動すると声が出ます。',
            none: 'このサーバーは声を使わない設定で動いています。',
        },
        voiceGesture: 'ブラウザが音を止めています。ページをクリックすると声が出ます。',
        voiceRefused: 'この声は使えませんでした。既定の声に戻します。',
        percent: (n) => `${n}%`,
        times: (n) => `${n}倍`,
    },
    en: {
        tabVoice: 'Voice',
        voice: 'Voice',
        voiceLead: 'Reads the answers aloud, through VOICEVOX or any engine that speaks its interface.',
        voiceOn: 'Turn the voice on',
        voiceOff: 'Turn the voice off',
        mute: 'Mute',
        unmute: 'Unmute',
        voiceSpeaker: 'Speaker',
        voiceDefault: 'The engine’s own',
        voiceVolume: 'Volume',
        voiceSpeed: 'Speed',
        voiceTry: 'Listen to it',
        voiceSample: 'こんにちは、りんねです。今日はなに話そっか？',
        voiceSwitch: 'Speak the answers',
        voiceState: {
            off: '',
            looking: 'Looking for a voice engine…',
            ready: 'Connected to the voice engine.',
            absent: 'There is no voice engine. Start VOICEVOX to hear her.',
            none: 'This server was started without voice.',
        },
        voiceGesture: 'The browser holds the sound back. Click on the page to hear her.',
        voiceRefused: 'This voice could not be used; back to the default.',
        percent: (n) => `${n}%`,
        times: (n) => `${n}×`,
    },
});

const KEY = 'rinne.voice';
const AHEAD = 3; /* sounds that wait to be played; made one after the other */
const LOOK_AGAIN = 10000; /* ms */
const BUSY_WAIT = 1000;
const NOTE_SHOWN = 10000;
const SILENT_SHOWN = 900; /* ms that a sentence without sound is the caption */

const $ = (id) => document.getElementById(id);
const between = (value, min, max, otherwise) =>
    Number.isFinite(value) && value >= min && value <= max ? value : otherwise;

export class Voice {
    /* send(message) to the server; false if it could not. */
    constructor({send})
    {
        const kept = load(KEY, {});
        this.send = send;
        this.on = kept.on === true;
        this.muted = kept.muted === true;
        this.volume = between(kept.volume, 0, 1, 1);
        this.speed = between(kept.speed, 0.5, 2, 1);
        this.speaker = Number.isInteger(kept.speaker) ? kept.speaker : null;
        this.state = 'off';
        this.note = ''; /* key of one more line */
        this.speakers = [];
        this.connectedNow = false;
        this.told = false; /* what the server knows of us */
        this.queue = []; /* {index, speech, url}: in order; url null: being made */
        this.making = null; /* AbortController */
        this.playing = null; /* the entry that is heard */
        this.lookTimer = 0;
        this.silentTimer = 0;
        this.audio = $('voice-audio');
        this.reported = null; /* index that the server knows as playing */
        this.drawn = ''; /* the list of speakers as shown */
        this.audio.addEventListener('ended', () => this.next());
        this.audio.addEventListener('error', () => this.next());
        this.listen();
        this.apply();
        onLanguage(() => this.redraw());
    }

    /* Will the next answer be heard? */
    get active()
    {
        return this.on && this.state === 'ready';
    }

    /* ---- what the page tells ---- */

    connected()
    {
        this.connectedNow = true;
        this.told = false;
        this.flush();
        if (this.on)
            this.look();
    }

    disconnected()
    {
        this.connectedNow = false;
        this.told = false;
    }

    sentence({index, speech})
    {
        if (!this.active || typeof speech !== 'string')
            return;
        this.queue.push({index, speech, url: null});
        this.make();
    }

    /* The user speaks: what was about to be said is not said any more. */
    flush()
    {
        this.making?.abort();
        this.making = null;
        clearTimeout(this.silentTimer);
        this.audio.pause();
        for (const entry of [...this.queue, this.playing])
            drop(entry);
        this.queue = [];
        this.playing = null;
        this.report(null);
        this.redraw();
    }

    /* ---- the engine ---- */

    async look()
    {
        clearTimeout(this.lookTimer);
        if (this.state !== 'ready')
            this.become(this.state === 'absent' ? 'absent' : 'looking');
        const {status, body} = await ask('/voicevox/speakers');
        if (!this.on)
            return;
        if (status === 200 && Array.isArray(body)) {
            this.speakers = body;
            this.become('ready');
            this.tell(true);
        } else if (status === 404) {
            this.become('none');
        } else {
            this.lost();
        }
    }

    /* No engine: everything else works as if nobody had asked for a voice. */
    lost()
    {
        this.flush();
        this.tell(false);
        this.become('absent');
        clearTimeout(this.lookTimer);
        this.lookTimer = setTimeout(() => this.look(), LOOK_AGAIN);
    }

    tell(on)
    {
        if (this.connectedNow && this.told !== on && this.send({type: 'voice', on}))
            this.told = on;
    }

    report(index)
    {
        if (this.told && index !== this.reported)
            this.send({type: 'playing', index});
        this.reported = index;
    }

    become(state)
    {
        this.state = state;
        this.redraw();
    }

    /* ---- making sounds, one after the other ---- */

    async make()
    {
        if (this.making)
            return;
        const entry = this.queue.find(({url}) => url === null);
        const waiting = this.queue.filter(({url}) => url !== null).length;
        if (!entry || waiting >= AHEAD)
            return;
        const making = new AbortController();
        this.making = making;
        const result = entry.speech === '' ? {status: 200, sound: null}
                                           : await this.fetchSound(entry.speech, making.signal);
        if (this.making !== making) /* flushed meanwhile */
            return;
        this.making = null;
        if (result.status === 200)
            entry.url = result.sound ? URL.createObjectURL(result.sound) : '';
        else if (result.status === 429)
            await new Promise((resolve) => setTimeout(resolve, BUSY_WAIT));
        else if (result.status >= 400 && result.status < 500)
            this.refused(entry);
        else
            this.lost();
        if (!this.playing)
            this.next();
        this.make();
    }

    async fetchSound(speech, signal)
    {
        const body = {input: speech, speed: this.speed, response_format: 'wav'};
        if (this.speaker !== null)
            body.voice = this.speaker;
        try {
            const answer = await fetch('/v1/audio/speech', {
                method: 'POST',
                headers: {'Content-Type': 'application/json'},
                body: JSON.stringify(body),
                signal,
            });
            return {status: answer.status, sound: answer.ok ? await answer.blob() : null};
        } catch {
            return {status: 0, sound: null};
        }
    }

    /* The engine does not know the speaker, say; the sentence is skipped. */
    refused(entry)
    {
        this.queue = this.queue.filter((other) => other !== entry);
        if (this.speaker === null)
            return;
        this.speaker = null;
        this.note = 'voiceRefused';
        setTimeout(() => this.clear('voiceRefused'), NOTE_SHOWN);
        this.store();
        this.look();
    }

    /* ---- playing ---- */

    next()
    {
        drop(this.playing);
        const entry = this.queue[0];
        if (!entry || entry.url === null) {
            this.playing = null;
            if (!entry)
                this.report(null);
            this.redraw();
            return;
        }
        this.queue.shift();
        this.playing = entry;
        this.redraw();
        if (entry.url === '') {
            this.report(entry.index);
            this.silentTimer = setTimeout(() => this.next(), SILENT_SHOWN);
        } else {
            this.play(entry);
        }
        this.make();
    }

    async play(entry)
    {
        this.audio.src = entry.url;
        try {
            await this.audio.play();
            this.clear('voiceGesture');
            this.report(entry.index);
        } catch (error) {
            if (this.playing !== entry)
                return;
            if (error.name !== 'NotAllowedError') {
                this.next();
                return;
            }
            /* Browsers play nothing before the user has touched the page. */
            this.note = 'voiceGesture';
            document.addEventListener('pointerdown', () => this.playing === entry && this.play(entry),
                                      {once: true});
        }
        this.redraw();
    }

    /* ---- the user's controls ---- */

    listen()
    {
        $('voice-toggle').addEventListener('click', () => this.turn(!this.on));
        $('voice-switch').addEventListener('change', () => this.turn($('voice-switch').checked));
        $('voice-mute').addEventListener('click', () => {
            this.muted = !this.muted;
            this.store();
        });
        $('voice-volume').addEventListener('input', () => {
            this.volume = $('voice-volume').valueAsNumber / 100;
            this.store();
        });
        $('voice-speed').addEventListener('input', () => {
            this.speed = $('voice-speed').valueAsNumber;
            this.store();
        });
        $('voice-speaker').addEventListener('change', () => {
            const {value} = $('voice-speaker');
            this.speaker = value === '' ? null : Number(value);
            this.store();
        });
        $('voice-try').addEventListener('click', () => this.sample());
        window.addEventListener('pagehide', () => this.flush());
    }

    turn(on)
    {
        this.on = on;
        this.note = '';
        this.store();
        if (on) {
            this.look();
            return;
        }
        clearTimeout(this.lookTimer);
        this.flush();
        this.tell(false);
        this.become('off');
    }

    /* Outside of any answer: no caption comes of it. */
    sample()
    {
        this.flush();
        this.queue.push({index: null, speech: t('voiceSample'), url: null});
        this.make();
    }

    store()
    {
        const {on, muted, volume, speed, speaker} = this;
        save(KEY, {on, muted, volume, speed, speaker});
        this.apply();
        this.redraw();
    }

    clear(note)
    {
        if (this.note !== note)
            return;
        this.note = '';
        this.redraw();
    }

    apply()
    {
        this.audio.volume = this.volume;
        this.audio.muted = this.muted;
    }

    /* ---- what is shown ---- */

    redraw()
    {
        const toggle = $('voice-toggle');
        const mute = $('voice-mute');
        const text = t(this.on ? 'voiceOff' : 'voiceOn');
        const line = this.note ? t(this.note) : t('voiceState')[this.state];
        document.body.dataset.voice = this.playing ? 'speaking' : this.state;
        toggle.setAttribute('aria-pressed', String(this.on));
        toggle.setAttribute('aria-label', text);
        toggle.title = line || text;
        mute.hidden = !this.on;
        mute.setAttribute('aria-pressed', String(this.muted));
        mute.setAttribute('aria-label', t(this.muted ? 'unmute' : 'mute'));
        mute.title = t(this.muted ? 'unmute' : 'mute');
        $('voice-switch').checked = this.on;
        $('voice-volume').value = Math.round(100 * this.volume);
        $('voice-volume-text').textContent = t('percent', Math.round(100 * this.volume));
        $('voice-speed').value = this.speed;
        $('voice-speed-text').textContent = t('times', this.speed.toFixed(2));
        $('voice-try').disabled = this.state !== 'ready';
        $('voice-state').textContent = line;
        /* Outside of the studio only what keeps her silent. */
        const hint = this.note || this.state === 'absent' || this.state === 'none' ? line : '';
        if ($('voice-hint').textContent !== hint)
            $('voice-hint').textContent = hint;
        $('voice-hint').hidden = hint === '';
        this.drawSpeakers();
    }

    drawSpeakers()
    {
        const select = $('voice-speaker');
        const option = (value, text) => new Option(text, value);
        const groups = this.speakers.map(({name, styles}) => {
            const group = document.createElement('optgroup');
            group.label = String(name);
            for (const style of Array.isArray(styles) ? styles : [])
                group.append(option(String(style.id), `${name}（${style.name}）`));
            return group;
        });
        /* An open list must not be taken from under the user's finger. */
        const drawn = JSON.stringify([t('voiceDefault'), this.speakers]);
        if (drawn !== this.drawn)
            select.replaceChildren(option('', t('voiceDefault')), ...groups);
        this.drawn = drawn;
        select.disabled = this.state !== 'ready';
        select.value = this.speaker === null ? '' : String(this.speaker);
        /* A speaker of another engine stays chosen; this one has none of that number. */
        if (select.selectedIndex < 0)
            select.value = '';
    }
}

function drop(entry)
{
    if (entry?.url)
        URL.revokeObjectURL(entry.url);
}

/* {status, body}: 0 without an answer. */
async function ask(path)
{
    try {
        const answer = await fetch(path, {cache: 'no-store'});
        return {status: answer.status, body: await answer.json()};
    } catch {
        return {status: 0, body: null};
    }
}
