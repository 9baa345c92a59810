/*
 * mixer.js - the mix: a small slider for every vector beside the main one, and the chooser with all
 * vectors that there are and whether they belong to the model.
 *
 * The server's word counts: what is chosen here is sent, and drawn when it comes back. Only a
 * slider under the user's fingers goes ahead of it, as the main one does.
 */
import {getDocument, post} from './api.js';
import {formatStrength} from './mood.js';
import {layerPlots} from './plots.js';
import {refusal} from './refusals.js';
import {addTexts, onLanguage, t} from './strings.js';
import {onTab, studioShows} from './studio.js';

addTexts({
    ja: {
        mix: '混ぜているベクトル',
        mixAdd: 'ベクトルを混ぜる',
        mixAddShort: '混ぜる',
        mixStrength: (name) => `${name} の強さ`,
        mixRemove: (name) => `${name} を外す`,
        mixFull: (n) => `同時に混ぜられるのは${n}つまでです。`,
        overMax: (max) => `このベクトルで確かめた上限 ${max} を超えています`,
        vectorsLead: 'りんねを動かす方向です。四つまで混ぜられます。主役の強さが「ギャルの強さ」です。',
        vectorsReload: '読み直す',
        vectorsNone: 'ベクトルはまだありません。次のコマンドで作れます:',
        vectorStates: {match: '照合済み', unverified: '照合できず', mismatch: '別のモデル用',
                       unreadable: '読めません'},
        vectorMain: '主役',
        vectorMixed: '混ぜている',
        vectorMakeMain: '主役にする',
        vectorMix: '混ぜる',
        vectorRemove: '外す',
        vectorLayersOf: (first, last) => first === last ? `第${first}層` : `第${first}〜${last}層`,
        vectorRecommended: (x) => `おすすめ ${x}`,
        vectorMax: (x) => `上限 ${x}`,
        vectorLayers: '使う層',
        vectorLayersAll: 'すべて',
        vectorDetails: '層ごとに見る',
        vectorLoading: '読んでいます…',
    },
    en: {
        mix: 'Vectors in the mix',
        mixAdd: 'Mix in a vector',
        mixAddShort: 'Mix',
        mixStrength: (name) => `Strength of ${name}`,
        mixRemove: (name) => `Take out ${name}`,
        mixFull: (n) => `At most ${n} can be mixed at a time.`,
        overMax: (max) => `Above ${max}, the most that was found safe for this vector`,
        vectorsLead: 'The directions that move Rinne; up to four can be mixed. The main one’s strength is the “Gyaru strength”.',
        vectorsReload: 'Read again',
        vectorsNone: 'There are no vectors yet. This command makes one:',
        vectorStates: {match: 'verified', unverified: 'not verified', mismatch: 'another model’s',
                       unreadable: 'unreadable'},
        vectorMain: 'main',
        vectorMixed: 'in the mix',
        vectorMakeMain: 'Make it main',
        vectorMix: 'Mix in',
        vectorRemove: 'Take out',
        vectorLayersOf: (first, last) => first === last ? `layer ${first}` : `layers ${first}–${last}`,
        vectorRecommended: (x) => `recommended ${x}`,
        vectorMax: (x) => `at most ${x}`,
        vectorLayers: 'Layers used',
        vectorLayersAll: 'all',
        vectorDetails: 'Layer by layer',
        vectorLoading: 'Reading…',
    },
});

const SEND_EVERY = 50; /* ms */
const SETTLE = 400;
const FIRST_STRENGTH = 6; /* of a vector that recommends none */
const MAX_MIXED = 4; /* unless the server says otherwise */
const COMMAND = 'gyaru extract -d PAIRS -o outputs/vectors/NAME.safetensors';
const $ = (id) => document.getElementById(id);

function element(name, className, text)
{
    const node = document.createElement(name);
    node.className = className;
    if (text !== undefined)
        node.textContent = text;
    return node;
}

function button(className, text, act)
{
    const node = element('button', className, text);
    node.type = 'button';
    node.addEventListener('click', act);
    return node;
}

/* One mixed vector in the console. */
class Row {
    constructor(mixer, {vector, strength})
    {
        this.mixer = mixer;
        this.vector = vector;
        this.value = strength;
        this.movedAt = this.sentAt = -Infinity;
        this.timer = this.settleTimer = 0;
        this.node = element('div', 'mix-row');
        this.name = element('span', 'mix-name', vector);
        this.name.title = vector;
        this.number = element('output', 'mix-number');
        this.slider = element('div', 'slider slider-small');
        this.input = element('input', '');
        this.input.type = 'range';
        const rail = element('div', 'slider-rail');
        rail.setAttribute('aria-hidden', 'true');
        rail.append(element('span', 'slider-fill'), element('span', 'slider-zero'));
        this.slider.append(rail, this.input);
        this.remove = button('mix-remove', '×', () => mixer.takeOut(vector));
        this.input.addEventListener('input', () => this.move(Number(this.input.value)));
        this.node.append(this.name, this.slider, this.number, this.remove);
        this.redraw();
    }

    move(value)
    {
        this.value = value;
        this.movedAt = performance.now();
        this.redraw();
        this.timer ||= setTimeout(() => {
            this.timer = 0;
            this.sentAt = performance.now();
            this.mixer.send({type: 'update_steering', vector: this.vector, strength: this.value});
        }, Math.max(0, this.sentAt + SEND_EVERY - performance.now()));
    }

    receive(strength)
    {
        clearTimeout(this.settleTimer);
        const still = this.movedAt + SETTLE - performance.now();
        if (still > 0) {
            this.settleTimer = setTimeout(() => this.receive(strength), still);
            return;
        }
        this.value = strength;
        this.redraw();
    }

    redraw()
    {
        const {min, max} = this.mixer.range;
        const part = (value) => ((value - min) / (max - min)).toFixed(4);
        Object.assign(this.input, {min, max, step: 0.5});
        this.input.value = this.value;
        this.input.setAttribute('aria-label', t('mixStrength', this.vector));
        this.input.setAttribute('aria-valuetext', formatStrength(this.value));
        this.slider.style.setProperty('--at', part(this.value));
        this.slider.style.setProperty('--zero', part(0));
        this.number.textContent = formatStrength(this.value);
        this.remove.setAttribute('aria-label', t('mixRemove', this.vector));
        this.remove.title = t('mixRemove', this.vector);
    }
}

export class Mixer {
    /* send(message) returns false if it could not; notify(text) tells the user. */
    constructor({send, notify})
    {
        this.send = send;
        this.notify = notify;
        this.range = {min: -10, max: 30};
        this.mix = []; /* as the server has it: [{vector, strength, layers}] */
        this.list = []; /* GET /v1/vectors */
        this.maxMixed = MAX_MIXED;
        this.rows = new Map();
        this.opened = new Set(); /* vectors whose layers are in view */
        this.strength = NaN;
        $('vectors-reload').addEventListener('click', async () => {
            const answer = await post('/v1/vectors/reload');
            if (answer?.error)
                this.notify(t('errorPrefix') + refusal(answer.error.reason, answer.error.message));
            this.take(answer);
        });
        onTab('vectors', () => this.fetch());
        onLanguage(() => this.redraw());
    }

    setRange(min, max)
    {
        if (min < max)
            this.range = {min, max};
    }

    async fetch()
    {
        this.take(await getDocument('/v1/vectors'));
    }

    take(document_)
    {
        if (!Array.isArray(document_?.data))
            return;
        this.list = document_.data.filter(({id}) => typeof id === 'string');
        this.maxMixed = document_.max_mixed ?? MAX_MIXED;
        this.redraw();
    }

    /* What the server says is mixed: in its hello and whenever the strength changes. */
    receive(vectors)
    {
        if (!Array.isArray(vectors))
            return;
        const names = (mix) => JSON.stringify(mix.map(({vector, layers}) => [vector, layers ?? '']));
        const same = names(vectors) === names(this.mix);
        this.mix = vectors;
        for (const {vector, strength} of vectors)
            this.rows.get(vector)?.receive(strength);
        if (!same)
            this.redraw();
    }

    /* The main strength, as the slider shows it. */
    setStrength(strength)
    {
        this.strength = strength;
        const max = this.list.find(({id}) => id === this.mix[0]?.vector)?.max_strength;
        const over = Number.isFinite(max) && strength > max;
        $('strength-warning').hidden = !over;
        $('strength-warning').textContent = over ? t('overMax', max) : '';
    }

    /* ---- changes ---- */

    replace(vectors)
    {
        this.send({type: 'update_steering', vectors: vectors.map(({vector, strength, layers}) =>
            layers ? {vector, strength, layers} : {vector, strength})});
    }

    takeOut(name)
    {
        this.replace(this.mix.filter(({vector}) => vector !== name));
        if ($('mix').contains(document.activeElement))
            $('mix-add').focus();
    }

    mixIn({id, recommended_strength: recommended})
    {
        if (this.mix.length >= this.maxMixed) {
            this.notify(t('mixFull', this.maxMixed));
            return;
        }
        this.send({type: 'update_steering', vector: id, strength: recommended ?? FIRST_STRENGTH});
    }

    makeMain(vector)
    {
        const strength = Number.isFinite(this.strength) ? this.strength : FIRST_STRENGTH;
        const known = this.mix.find((part) => part.vector === vector.id);
        const rest = this.mix.filter((part) => part !== known);
        /* From outside of the mix it takes the main one's place and strength. */
        this.replace(known ? [known, ...rest] : [{vector: vector.id, strength}, ...rest.slice(1)]);
    }

    setLayers(name, layers)
    {
        this.replace(this.mix.map((part) => part.vector === name ? {...part, layers} : part));
    }

    /* ---- drawing ---- */

    redraw()
    {
        this.drawRows();
        if (studioShows('vectors'))
            this.drawCards();
        this.setStrength(this.strength);
    }

    drawRows()
    {
        const others = this.mix.slice(1);
        for (const name of this.rows.keys()) {
            if (!others.some(({vector}) => vector === name)) {
                this.rows.get(name).node.remove();
                this.rows.delete(name);
            }
        }
        for (const part of others) {
            if (!this.rows.has(part.vector))
                this.rows.set(part.vector, new Row(this, part));
            const row = this.rows.get(part.vector);
            row.redraw();
            /* Moving a node takes the focus from it. */
            if ($('mix').children[others.indexOf(part)] !== row.node)
                $('mix').insertBefore(row.node, $('mix').children[others.indexOf(part)] ?? null);
        }
        const usable = this.list.filter(({usable: is}) => is).length;
        $('mix-add').hidden = usable < 2 && this.mix.length < 2;
    }

    drawCards()
    {
        const focused = document.activeElement?.closest?.('#vectors [data-vector]');
        const act = document.activeElement?.dataset?.act;
        /* What steers first, as it is mixed; what cannot last. */
        const place = ({id, usable}) => {
            const i = this.mix.findIndex((part) => part.vector === id);
            return i >= 0 ? i : usable ? this.mix.length : this.mix.length + 1;
        };
        const cards = [...this.list].sort((a, b) => place(a) - place(b))
            .map((vector) => this.card(vector));
        if (!cards.length) {
            const none = element('li', 'none', t('vectorsNone'));
            none.append(element('code', '', COMMAND));
            cards.push(none);
        }
        $('vectors').replaceChildren(...cards);
        if (focused) {
            const card = cards.find((node) => node.dataset.vector === focused.dataset.vector);
            (card?.querySelector(`[data-act="${act}"]`) ?? card?.querySelector('button')
             ?? $('vectors-reload')).focus();
        }
    }

    card(vector)
    {
        const part = this.mix.find((one) => one.vector === vector.id);
        const main = part && part === this.mix[0];
        const card = element('li', 'vector');
        const head = element('p', 'vector-head');
        card.dataset.vector = vector.id;
        head.append(element('b', 'vector-name', vector.id),
                    element('span', `badge badge-${vector.fingerprint}`,
                            t('vectorStates')[vector.fingerprint] ?? vector.fingerprint));
        if (part)
            head.append(element('span', 'badge badge-use', t(main ? 'vectorMain' : 'vectorMixed')));
        card.append(head);
        if (vector.usable)
            card.append(element('p', 'vector-facts', this.factsOf(vector)));
        if (vector.reason) {
            const reason = element('p', 'vector-reason', refusal(vector.reason_code, vector.reason));
            reason.title = vector.reason;
            card.append(reason);
        }
        if (vector.usable)
            card.append(this.controls(vector, part, main), this.details(vector));
        card.classList.toggle('vector-used', Boolean(part));
        card.classList.toggle('vector-refused', !vector.usable);
        return card;
    }

    factsOf(vector)
    {
        const known = (value, key) => Number.isFinite(value) ? t(key, formatStrength(value)) : '';
        return [t('vectorLayersOf', vector.layer_min, vector.layer_max), vector.method,
                known(vector.recommended_strength, 'vectorRecommended'),
                known(vector.max_strength, 'vectorMax')].filter(Boolean).join(' ・ ');
    }

    controls(vector, part, main)
    {
        const line = element('div', 'vector-controls');
        const add = (act, text, does) => {
            const node = button('button button-small', text, does);
            node.dataset.act = act;
            node.setAttribute('aria-label', `${text}: ${vector.id}`);
            line.append(node);
        };
        if (!main)
            add('main', t('vectorMakeMain'), () => this.makeMain(vector));
        if (!part)
            add('mix', t('vectorMix'), () => this.mixIn(vector));
        else
            add('remove', t('vectorRemove'), () => this.takeOut(vector.id));
        if (part) {
            const label = element('label', 'vector-layers', t('vectorLayers'));
            const input = element('input', '');
            input.type = 'text';
            input.inputMode = 'numeric';
            input.dataset.act = 'layers';
            input.value = part.layers ?? '';
            input.placeholder = t('vectorLayersAll');
            input.pattern = '\\d{1,4}(-\\d{1,4})?';
            input.addEventListener('change', () => {
                if (input.validity.valid)
                    this.setLayers(vector.id, input.value.trim());
            });
            label.append(input);
            line.append(label);
        }
        return line;
    }

    details(vector)
    {
        const box = element('details', 'vector-details');
        const fill = async () => {
            box.lastElementChild.replaceWith(element('p', 'plot-note', t('vectorLoading')));
            const details = await getDocument(`/v1/vectors/${encodeURIComponent(vector.id)}`);
            box.lastElementChild.replaceWith(layerPlots(details));
        };
        box.append(element('summary', '', t('vectorDetails')), element('p', ''));
        box.firstElementChild.dataset.act = 'details';
        box.open = this.opened.has(vector.id);
        if (box.open)
            fill();
        box.addEventListener('toggle', () => {
            const known = this.opened.has(vector.id);
            if (box.open && !known) {
                this.opened.add(vector.id);
                fill();
            } else if (!box.open) {
                this.opened.delete(vector.id);
            }
        });
        return box;
    }
}
