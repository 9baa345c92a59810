/*
 * persona.js - who Rinne is told to be: the server's presets, the user's own, and the editor.
 *
 * The choice is kept in this browser and sent to the server whenever a connection begins; without
 * one the server's own system prompt stays. A preset is never changed: saving it makes a persona of
 * the user's own.
 */
import {getList} from './api.js';
import {load, save} from './store.js';
import {addTexts, onLanguage, t} from './strings.js';
import {onTab} from './studio.js';

addTexts({
    ja: {
        personaChip: '人格',
        personaLead: '役どころを決める言葉（システムプロンプト）です。次の質問から効きます。',
        personaTitle: '名前',
        personaText: 'システムプロンプト',
        personaSave: '保存して使う',
        personaDelete: '削除',
        personaNames: {'': 'そのまま', butler: '執事', gyaru: 'ギャル'},
        personaServer: 'サーバーの設定のまま',
        personaEmpty: '（何も加えません）',
        personaOwn: '自作',
        personaNew: 'わたしの人格',
        personaUsed: '次の質問から効きます',
        personaWaits: 'つながったら使われます',
        personaEdited: '変更はまだ使われていません',
        personaNotKept: 'このブラウザには保存できませんでした',
    },
    en: {
        personaChip: 'Persona',
        personaLead: 'What Rinne is told to be (the system prompt). It acts from the next question on.',
        personaTitle: 'Name',
        personaText: 'System prompt',
        personaSave: 'Save and use',
        personaDelete: 'Delete',
        personaNames: {'': 'As she is', butler: 'Butler', gyaru: 'Gyaru'},
        personaServer: 'As the server is set',
        personaEmpty: '(nothing is added)',
        personaOwn: 'yours',
        personaNew: 'My persona',
        personaUsed: 'Acts from the next question on',
        personaWaits: 'Will be used once connected',
        personaEdited: 'Changes are not used yet',
        personaNotKept: 'This browser would not keep it',
    },
});

const KEY = 'rinne.persona';
const $ = (id) => document.getElementById(id);

export class Persona {
    /* send(message) returns false if it could not. */
    constructor({send})
    {
        this.send = send;
        const kept = load(KEY, {});
        this.current = typeof kept.current === 'string' ? kept.current : '';
        this.own = Array.isArray(kept.own)
            ? kept.own.filter((one) => typeof one?.name === 'string' && typeof one.system === 'string')
            : [];
        this.presets = [];
        this.serverPrompt = null;
        this.asked = false;
        this.state = '';
        this.edited = false; /* the editor holds what is not saved: nothing else may write there */
        $('persona-form').addEventListener('submit', (event) => {
            event.preventDefault();
            this.keep();
        });
        $('persona-delete').addEventListener('click', () => this.remove());
        for (const field of [$('persona-title'), $('persona-text')]) {
            field.addEventListener('input', () => {
                this.edited = true;
                this.setState('personaEdited');
            });
        }
        $('personas').addEventListener('keydown', (event) => this.step(event));
        onTab('persona', () => this.fetch());
        onLanguage(() => this.redraw());
    }

    /* All there are: {id, name, system, own}. Ids of the user's own begin with "own:". */
    get all()
    {
        const names = t('personaNames');
        const presets = this.presets.map(({id, system}) => ({id, system, name: names[id] ?? id}));
        const own = this.own.map(({name, system}) => ({id: `own:${name}`, name, system, own: true}));
        return [{id: '', name: names[''], system: this.serverPrompt}, ...presets, ...own];
    }

    get chosen()
    {
        return this.all.find(({id}) => id === this.current) ?? this.all[0];
    }

    async fetch()
    {
        if (this.presets.length)
            return;
        const list = await getList('/v1/personas');
        this.presets = list.filter(({id, system}) => typeof id === 'string' && typeof system === 'string');
        this.redraw();
    }

    /* A connection begins; `prompt` is the one that the server gave it. */
    async connected(prompt)
    {
        this.serverPrompt = prompt ?? null;
        if (this.current !== '') {
            await this.fetch();
            if (this.chosen.id !== '')
                this.tell();
        }
        this.redraw();
    }

    tell()
    {
        this.asked = this.send({type: 'system', content: this.chosen.system});
        this.setState(this.asked ? '' : 'personaWaits');
    }

    /* The server took it. */
    updated()
    {
        if (this.asked && !this.edited)
            this.setState('personaUsed');
        this.asked = false;
    }

    choose(id)
    {
        this.current = id;
        this.edited = false;
        this.store();
        this.tell();
        this.redraw();
    }

    keep()
    {
        const system = $('persona-text').value.trim();
        const name = $('persona-title').value.trim() || t('personaNew');
        if (!system) {
            this.choose('');
            return;
        }
        const known = this.own.find((one) => one.name === name);
        const renamed = this.chosen.own ? this.own.find((one) => one.name === this.chosen.name) : null;
        if (known) {
            known.system = system;
        } else if (renamed) {
            Object.assign(renamed, {name, system});
        } else {
            this.own.push({name, system});
        }
        this.choose(`own:${name}`);
    }

    remove()
    {
        this.own = this.own.filter(({name}) => `own:${name}` !== this.current);
        this.choose('');
        $('personas').querySelector('[aria-checked="true"]').focus();
    }

    store()
    {
        if (!save(KEY, {current: this.current, own: this.own}))
            this.setState('personaNotKept');
    }

    setState(key)
    {
        this.state = key;
        $('persona-state').textContent = key ? t(key) : '';
    }

    /* Arrows move the choice, as in every group of radio buttons. */
    step(event)
    {
        const steps = {ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1};
        if (!(event.key in steps))
            return;
        event.preventDefault();
        const ids = this.all.map(({id}) => id);
        const i = ids.indexOf(this.chosen.id);
        this.choose(ids[(i + steps[event.key] + ids.length) % ids.length]);
        $('personas').querySelector('[aria-checked="true"]').focus();
    }

    redraw()
    {
        const {chosen} = this;
        const focused = $('personas').contains(document.activeElement);
        $('personas').replaceChildren(...this.all.map((one) => this.card(one, one.id === chosen.id)));
        if (focused)
            $('personas').querySelector('[aria-checked="true"]').focus();
        if (!this.edited) {
            $('persona-title').value = chosen.id === '' ? '' : chosen.name;
            $('persona-text').value = chosen.system ?? '';
        }
        $('persona-title').placeholder = t('personaNew');
        $('persona-text').placeholder = t('personaEmpty');
        $('persona-delete').hidden = !chosen.own;
        $('persona-chip').hidden = chosen.id === '';
        $('persona-name').textContent = chosen.name;
        this.setState(this.state);
    }

    card({id, name, system, own}, checked)
    {
        const card = document.createElement('button');
        const title = document.createElement('b');
        const text = document.createElement('span');
        card.type = 'button';
        card.className = 'persona';
        card.dataset.id = id;
        card.setAttribute('role', 'radio');
        card.setAttribute('aria-checked', String(checked));
        card.tabIndex = checked ? 0 : -1;
        title.textContent = name;
        text.textContent = system ?? t(id === '' ? 'personaServer' : 'personaEmpty');
        card.append(title, text);
        if (own) {
            const tag = document.createElement('i');
            tag.textContent = t('personaOwn');
            title.append(' ', tag);
        }
        card.addEventListener('click', () => this.choose(id));
        return card;
    }
}
