/*
 * sampling.js - how words are chosen: one row per option, with unit, range and the server's default.
 *
 * Only what differs from the default is kept in this browser and goes with a message.
 */
import {load, save} from './store.js';
import {addTexts, onLanguage, t} from './strings.js';

addTexts({
    ja: {
        samplingLead: '言葉の選び方です。次の質問から効き、このブラウザに残ります。',
        samplingReset: 'すべて既定に戻す',
        samplingDefault: (value) => `既定 ${value}`,
        samplingBack: (name) => `${name}を既定に戻す`,
        samplingRandom: '毎回ちがう',
        samplingOff: 'なし',
        samplingAll: '入るだけ',
        samplingRange: (min, max) => max === null ? `${min} 以上` : `${min}〜${max}`,
        knobs: {
            temperature: ['温度', '高いほど気まぐれ。0 はいつも同じ答え'],
            top_p: ['Top-p', '確率の合計がここまでの候補から選ぶ。1 で切る'],
            top_k: ['Top-k', '上位いくつの候補から選ぶか（個）。0 で切る'],
            min_p: ['Min-p', '一番の候補に対する割合の下限。0 で切る'],
            repeat_penalty: ['繰り返しの罰', '言ったことを言いにくくする倍率。1 で切る'],
            max_tokens: ['長さの上限', '返事の長さ（トークン）。0 は入るだけ'],
            seed: ['乱数の種', '同じ種・同じ質問なら同じ答え。空なら毎回ちがう'],
        },
    },
    en: {
        samplingLead: 'How words are chosen. Acts from the next question on and stays in this browser.',
        samplingReset: 'Everything to its default',
        samplingDefault: (value) => `default ${value}`,
        samplingBack: (name) => `${name} to its default`,
        samplingRandom: 'another each time',
        samplingOff: 'off',
        samplingAll: 'what fits',
        samplingRange: (min, max) => max === null ? `${min} or more` : `${min} to ${max}`,
        knobs: {
            temperature: ['Temperature', 'Higher is more whimsical; 0 always says the same'],
            top_p: ['Top-p', 'Chooses among candidates up to this total probability; 1 is off'],
            top_k: ['Top-k', 'Chooses among so many candidates; 0 is off'],
            min_p: ['Min-p', 'Least share of the best candidate’s probability; 0 is off'],
            repeat_penalty: ['Repetition penalty', 'Makes what was said less likely; 1 is off'],
            max_tokens: ['Longest answer', 'In tokens; 0: what fits'],
            seed: ['Seed', 'The same seed and question give the same answer; empty: another each time'],
        },
    },
});

const KEY = 'rinne.sampling';
const MOST_SHOWN = 1000; /* a larger limit is no news to anybody */

/* `to`: where the slider ends; the field beside it takes more. */
const KNOBS = [
    {id: 'temperature', min: 0, max: 5, to: 2, step: 0.05},
    {id: 'top_p', min: 0, max: 1, to: 1, step: 0.01},
    {id: 'top_k', min: 0, max: 1000000, to: 200, step: 1, off: 0},
    {id: 'min_p', min: 0, max: 1, to: 0.5, step: 0.01, off: 0},
    {id: 'repeat_penalty', min: 0.1, max: 10, to: 2, from: 0.8, step: 0.01, off: 1},
    {id: 'max_tokens', min: 0, max: 1000000, to: 1024, step: 1, all: 0},
    {id: 'seed', min: 0, max: 4294967295, step: 1},
];

const round = (value) => Number(Number(value).toFixed(4));

export class Sampling {
    constructor()
    {
        this.defaults = {};
        this.set = this.valid(load(KEY, {}));
        this.rows = KNOBS.map((knob) => this.addRow(knob));
        document.getElementById('sampling-reset').addEventListener('click', () => {
            this.set = {};
            this.store();
        });
        onLanguage(() => this.redraw());
    }

    valid(kept)
    {
        return Object.fromEntries(KNOBS.map(({id, min, max}) => [id, kept?.[id], min, max])
            .filter(([, value, min, max]) => Number.isFinite(value) && value >= min && value <= max)
            .map(([id, value]) => [id, value]));
    }

    /* The server's hello. */
    connected(defaults)
    {
        this.defaults = Object.fromEntries(Object.entries(defaults ?? {})
            .filter(([, value]) => Number.isFinite(value)).map(([id, value]) => [id, round(value)]));
        this.redraw();
    }

    /* What a message says; undefined: nothing. 0 tokens mean what fits, which the server calls -1. */
    get message()
    {
        const set = {...this.set};
        if (set.max_tokens === 0)
            set.max_tokens = -1;
        return Object.keys(set).length ? set : undefined;
    }

    addRow(knob)
    {
        const row = document.createElement('div');
        const label = document.createElement('label');
        const text = document.createElement('p');
        const field = document.createElement('input');
        const back = document.createElement('button');
        const slider = knob.to === undefined ? null : document.createElement('input');
        row.className = 'knob';
        field.type = 'number';
        field.id = `knob-${knob.id}`;
        label.htmlFor = field.id;
        text.id = `${field.id}-text`;
        text.className = 'knob-text';
        field.setAttribute('aria-describedby', text.id);
        Object.assign(field, {min: knob.min, max: knob.max, step: knob.step});
        field.addEventListener('change', () => this.take(knob, field.value));
        back.type = 'button';
        back.className = 'knob-back';
        back.addEventListener('click', () => this.take(knob, ''));
        row.append(label, field, back, text);
        if (slider) {
            slider.type = 'range';
            slider.className = 'knob-slider';
            Object.assign(slider, {min: knob.from ?? knob.min, max: knob.to, step: knob.step});
            slider.addEventListener('input', () => this.take(knob, slider.value));
            text.before(slider);
        }
        document.getElementById('knobs').append(row);
        return {knob, row, label, text, field, slider, back};
    }

    take({id, min, max, step}, text)
    {
        const value = Number(text);
        if (text === '' || !Number.isFinite(value))
            delete this.set[id];
        else
            this.set[id] = round(Math.min(Math.max(step === 1 ? Math.round(value) : value, min), max));
        if (this.set[id] === this.defaults[id])
            delete this.set[id];
        this.store();
    }

    store()
    {
        save(KEY, this.set);
        this.redraw();
    }

    wordOf({id, off, all}, value)
    {
        return value === undefined ? t('samplingRandom')
            : value === all ? t('samplingAll') : value === off ? t('samplingOff') : String(value);
    }

    redraw()
    {
        for (const {knob, row, label, text, field, slider, back} of this.rows) {
            const [name, meaning] = t('knobs')[knob.id];
            const standard = this.defaults[knob.id];
            const value = this.set[knob.id] ?? standard;
            label.textContent = name;
            text.textContent = `${meaning} ・ ${t('samplingRange', knob.min,
                                                knob.max > MOST_SHOWN ? null : knob.max)}`;
            field.value = value ?? '';
            field.placeholder = standard === undefined ? t('samplingRandom') : '';
            back.textContent = t('samplingDefault', this.wordOf(knob, standard));
            back.setAttribute('aria-label', t('samplingBack', name));
            back.disabled = !(knob.id in this.set);
            row.classList.toggle('knob-set', knob.id in this.set);
            if (!slider)
                continue;
            slider.value = value ?? knob.min;
            slider.setAttribute('aria-label', name);
            slider.setAttribute('aria-valuetext', this.wordOf(knob, value));
        }
    }
}
