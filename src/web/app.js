/*
 * app.js - the page's centre: connects the parts, runs the protocol of /ws.
 *
 * Server events: hello, prefill, token, sentence, gauge, strength_updated, system_updated,
 * vectors_changed, done, error. The original's server sends no hello and only `value` in gauge:
 * everything else here is optional.
 */
import {Answer} from './answer.js';
import {Chart, Series} from './chart.js';
import {Connection} from './connection.js';
import {Conversation, jsonBytes} from './conversation.js';
import {Export} from './export.js';
import {Log} from './log.js';
import {Meter} from './meter.js';
import {Mixer} from './mixer.js';
import {Persona} from './persona.js';
import {refusal} from './refusals.js';
import {Reports} from './reports.js';
import {Sampling} from './sampling.js';
import {Strength} from './strength.js';
import {initLanguage, onLanguage, t} from './strings.js';
import {setNotice} from './studio.js';
import {Voice} from './voice.js';

const CANCEL_PATIENCE = 4000; /* ms of silence after which a cancelled answer is over anyway */
const MESSAGE_BYTES = 65536; /* what a server takes unless its hello says otherwise */
const MESSAGE_FRAME = 512; /* bytes of a message besides content and history */

const $ = (id) => document.getElementById(id);

initLanguage($('language'));
const conversation = new Conversation();
const log = new Log();
const meter = new Meter();
const chart = new Chart();
let answer = null; /* the running Answer */
let historyOwed = true; /* this connection's server does not know the conversation yet */
let messageBytes = MESSAGE_BYTES;
let staleEnds = 0; /* answers given up here whose end the server has yet to send */
let cancelTimer = 0;
let linkState = ['connecting', null];
let hello = null; /* the server's last one */
let interruption = null; /* what the user said into a spoken answer */

const connection = new Connection({onState: linkChanged, onMessage: receive});
const send = (message) => connection.send(message);
const mixer = new Mixer({send, notify});
const strength = new Strength({
    send: (value) => send({type: 'update_strength', value}),
    onChange: (value) => mixer.setStrength(value),
});
const persona = new Persona({send});
const sampling = new Sampling();
const voice = new Voice({send});
new Reports();
new Export({
    turns: () => conversation.turns,
    about: () => ({
        model: hello?.model,
        vectors: mixer.mix,
        persona: persona.chosen.system
            ? {name: persona.chosen.name, system: persona.chosen.system} : null,
        sampling: {...sampling.defaults, ...sampling.set},
    }),
});

/* ---- what the server says ---- */

const handlers = {
    hello(message)
    {
        strength.setRange(message.strength_min, message.strength_max);
        chart.setRange(message.strength_min, message.strength_max);
        strength.connected(message.strength);
        meter.setLayer(message.gauge_layer);
        mixer.setRange(message.strength_min, message.strength_max);
        mixer.receive(message.vectors ?? []);
        mixer.fetch();
        persona.connected(message.system);
        sampling.connected(message.sampling);
        messageBytes = message.max_message_bytes ?? MESSAGE_BYTES;
        hello = message;
        showModel();
        voice.connected();
    },
    prefill(message)
    {
        if (answer && !staleEnds && message.total > 0)
            answer.view.setReading(message.done / message.total);
    },
    token(message)
    {
        if (!answer || staleEnds || typeof message.content !== 'string')
            return;
        answer.token(message.content);
        patience();
        showStats();
    },
    gauge(message)
    {
        if (staleEnds || !Number.isFinite(message.value))
            return;
        if (Number.isInteger(message.layer))
            meter.setLayer(message.layer);
        if (!answer) {
            meter.set(message.value, message.calibrated);
            return;
        }
        answer.gauge(message.value, message.calibrated,
                     Number.isFinite(message.strength) ? message.strength : strength.value,
                     message.tokens_per_second);
        meter.set(message.value, answer.series.calibrated.at(-1));
        chart.changed();
        patience();
        showStats();
    },
    sentence(message)
    {
        if (answer && !answer.cancelled && !staleEnds)
            voice.sentence(message);
    },
    strength_updated(message)
    {
        strength.receive(message.value);
        if (!Array.isArray(message.vectors))
            return;
        mixer.receive(message.vectors);
        hello = {...hello, vector: message.vector, fingerprint: message.fingerprint};
        showModel();
        if (!answer)
            meter.setLayer(message.gauge_layer);
    },
    system_updated()
    {
        persona.updated();
    },
    vectors_changed()
    {
        mixer.fetch();
    },
    done(message)
    {
        if (staleEnds) {
            staleEnds--;
            return;
        }
        if (!answer)
            return;
        if (typeof message.full_response === 'string') {
            answer.text = message.full_response;
            answer.view.replace(answer.text);
        }
        if (Number.isFinite(message.timings?.tokens_per_second))
            answer.serverSpeed = message.timings.tokens_per_second;
        answer.forgotten += message.dropped_messages ?? 0;
        endAnswer(message.finish_reason ?? (answer.cancelled ? 'cancelled' : 'stop'));
    },
    error(message)
    {
        notify(t('errorPrefix') + refusal(message.reason, message.message));
        if (staleEnds)
            staleEnds--;
        /* A refused side message (a strength, say) does not end an answer that is under way. */
        else if (answer && (!answer.begun || message.code === undefined
                            || message.code === 'failed'))
            endAnswer('error');
    },
};

function receive(message)
{
    if (Object.hasOwn(handlers, message.type))
        handlers[message.type](message);
}

/* ---- an answer's life ---- */

function ask(text)
{
    if (answer || text.trim() === '')
        return false;
    const message = {type: 'message', content: text};
    const room = messageBytes - MESSAGE_FRAME - jsonBytes(text);
    const {turns, forgotten} = conversation.history(room);
    if (historyOwed && turns.length)
        message.history = turns;
    if (sampling.message)
        message.sampling = sampling.message;
    if (!connection.send(message)) {
        notify(t('notConnected'));
        return false;
    }
    notify('');
    voice.flush();
    keep(conversation.add('user', text));
    log.addUser(text);
    answer = new Answer(log.addAnswer());
    answer.forgotten = historyOwed ? forgotten : 0;
    historyOwed = false;
    meter.set(NaN, NaN);
    chart.show(answer.series);
    showStats();
    showBusy();
    return true;
}

function endAnswer(end)
{
    clearTimeout(cancelTimer);
    const ended = answer;
    answer = null;
    const note = ended.note(end);
    ended.view.finish(note);
    keep(conversation.add('assistant', ended.text, note));
    chart.describe();
    showStats(ended);
    showBusy();
    sayInterruption();
}

/* Who speaks to somebody who speaks interrupts. */
function interrupt(text)
{
    if (text.trim() === '')
        return false;
    interruption = text;
    cancel();
    return true;
}

function sayInterruption()
{
    const text = interruption;
    interruption = null;
    if (text === null || ask(text))
        return;
    $('input').value = text;
    fitInput();
}

function cancel()
{
    voice.flush();
    if (!answer || answer.cancelled)
        return;
    answer.cancelled = true;
    connection.send({type: 'cancel'});
    patience();
}

/* A server that does not know `cancel` never confirms it. */
function patience()
{
    if (!answer?.cancelled)
        return;
    clearTimeout(cancelTimer);
    cancelTimer = setTimeout(abandon, CANCEL_PATIENCE);
}

/* Ends the answer here; what the server still sends of it is ignored. */
function abandon()
{
    staleEnds++;
    endAnswer('cancelled');
}

function askReset()
{
    $('reset-dialog').returnValue = 'no';
    $('reset-dialog').showModal();
}

function resetAnswered()
{
    const yes = $('reset-dialog').returnValue === 'yes';
    $('reset-dialog').returnValue = 'no';
    $('input').focus();
    if (yes)
        reset();
}

function reset()
{
    voice.flush();
    if (answer) {
        cancel();
        abandon();
    }
    connection.send({type: 'reset'});
    historyOwed = false;
    conversation.clear();
    log.clear();
    meter.set(NaN, NaN);
    chart.show(new Series());
    notify('');
    showStats();
}

function keep(saved)
{
    if (!saved)
        notify(t('notSaved'));
}

/* ---- what is shown around it ---- */

function linkChanged(state, detail)
{
    linkState = [state, detail];
    if (state !== 'ready')
        voice.disconnected();
    if (state === 'ready')
        historyOwed = true;
    else if (answer)
        endAnswer('lost');
    staleEnds = 0;
    showLink();
}

function showLink()
{
    const [state, detail] = linkState;
    const shown = state === 'ready' && answer ? 'answering' : state;
    const key = `link${shown[0].toUpperCase()}${shown.slice(1)}`;
    document.body.dataset.link = shown;
    setText($('link-text'), t(key));
    setText($('link-detail'), t(`${key}Detail`, detail) ?? '');
    $('send').disabled = state !== 'ready';
    const place = state === 'loading' ? 'loading'
        : state === 'waiting' || state === 'retrying' ? 'offline' : 'welcome';
    document.querySelector('.welcome-title').textContent = t(`${place}Title`);
    document.querySelector('.welcome-text').textContent = t(`${place}Text`);
    $('starters').hidden = place !== 'welcome';
}

/* Unchanged text is not set again: screen readers would repeat it. */
function setText(node, text)
{
    if (node.textContent !== text)
        node.textContent = text;
}

function showModel()
{
    const vector = hello?.vector && hello.fingerprint === 'unverified'
        ? `${hello.vector} ${t('unverified')}` : hello?.vector;
    $('model').textContent = [hello?.model, vector].filter(Boolean).join(' + ');
    $('model').hidden = !hello?.model;
}

/* The button that has the focus must not vanish under it. */
function showBusy()
{
    const busy = Boolean(answer);
    const focused = document.activeElement === $('send') || document.activeElement === $('cancel');
    $('cancel').hidden = !busy;
    $('send').hidden = busy;
    if (focused)
        (busy ? $('cancel') : $('input')).focus();
    showLink();
}

function showStats(of = answer)
{
    const show = (id, value, digits) => {
        $(id).textContent = Number.isFinite(value) ? value.toFixed(digits) : '–';
    };
    show('speed', of?.speed, of?.speed < 100 ? 1 : 0);
    show('first', of?.firstLatency, 0);
    show('count', of?.count || NaN, 0);
}

function notify(text)
{
    $('notice').hidden = text === '';
    $('notice-text').textContent = text;
    setNotice(text);
}

/* ---- what the user does ---- */

function submit()
{
    const {value} = $('input');
    if (answer && voice.active ? interrupt(value) : ask(value)) {
        $('input').value = '';
        fitInput();
    }
}

/* The field grows with its text up to the limit that the style sets. */
function fitInput()
{
    const {style} = $('input');
    style.height = 'auto';
    style.height = `${$('input').scrollHeight}px`;
}

function listen()
{
    $('composer').addEventListener('submit', (event) => {
        event.preventDefault();
        submit();
    });
    $('input').addEventListener('input', fitInput);
    $('input').addEventListener('keydown', (event) => {
        /* Enter that confirms a conversion in an input method is not ours (229: Safari). */
        if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229)
            return;
        event.preventDefault();
        submit();
    });
    document.addEventListener('keydown', (event) => {
        if (event.key === 'Escape' && !event.isComposing
            && !document.querySelector('dialog[open]'))
            cancel();
    });
    $('cancel').addEventListener('click', cancel);
    $('reset').addEventListener('click', askReset);
    $('reset-dialog').addEventListener('close', resetAnswered);
    $('notice-close').addEventListener('click', () => {
        notify('');
        $('input').focus();
    });
    window.addEventListener('pagehide', () => {
        if (answer)
            endAnswer('lost');
    });
}

function showStarters()
{
    $('starters').replaceChildren(...t('starterTexts').map((text) => {
        const item = document.createElement('li');
        const button = document.createElement('button');
        button.type = 'button';
        button.className = 'starter';
        button.lang = 'ja';
        button.textContent = text;
        button.addEventListener('click', () => {
            ask(text);
            $('input').focus();
        });
        item.append(button);
        return item;
    }));
}

function restore()
{
    for (const {role, content, note} of conversation.turns) {
        if (role === 'user') {
            log.addUser(content);
            continue;
        }
        const view = log.addAnswer();
        view.replace(content);
        view.finish(note ?? {});
    }
    log.spoken.replaceChildren();
}

listen();
restore();
onLanguage(() => {
    showStarters();
    showLink();
    showModel();
});
showStats();
/* On a touch screen the focus would raise the keyboard over half of the stage. */
if (matchMedia('(hover: hover)').matches)
    $('input').focus();
connection.open();
