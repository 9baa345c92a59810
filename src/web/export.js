/*
 * export.js - the conversation as a file: Markdown to be read, JSON to be worked with.
 */
import {formatCosine} from './mood.js';
import {addTexts, onLanguage, t} from './strings.js';
import {onTab} from './studio.js';

addTexts({
    ja: {
        save: '会話を保存',
        saveLead: 'この会話を、メーターや設定の記録といっしょにファイルへ保存します。',
        saveMarkdown: '文章で保存（Markdown）',
        saveJson: 'データで保存（JSON）',
        saveSummary: (n) => `${n}件の発言があります。`,
        saveNothing: 'まだ何も話していません。',
        savePreview: '中身',
        saveTitle: 'りんねとの会話',
        saveFacts: {model: 'モデル', vectors: 'ベクトル', persona: '人格', saved: '保存'},
    },
    en: {
        save: 'Save the conversation',
        saveLead: 'Saves this conversation to a file, with its meter readings and settings.',
        saveMarkdown: 'As text (Markdown)',
        saveJson: 'As data (JSON)',
        saveSummary: (n) => `${n} messages so far.`,
        saveNothing: 'Nothing has been said yet.',
        savePreview: 'What it will hold',
        saveTitle: 'A conversation with Rinne',
        saveFacts: {model: 'Model', vectors: 'Vectors', persona: 'Persona', saved: 'Saved'},
    },
});

const $ = (id) => document.getElementById(id);

/* about: {model, vectors: [{vector, strength}], persona: {name, system}, sampling} */
function toJson(turns, about, when)
{
    return `${JSON.stringify({
        format: 'gyaru-conversation',
        version: 1,
        saved: when.toISOString(),
        model: about.model ?? null,
        vectors: about.vectors ?? [],
        persona: about.persona ?? null,
        sampling: about.sampling ?? {},
        messages: turns.map(({role, content, at, note}) => ({
            role,
            content,
            ...(at ? {time: new Date(at).toISOString()} : {}),
            ...(note ? {answer: note} : {}),
        })),
    }, null, 1)}\n`;
}

/* What was said is quoted line by line, so that none of it can be mistaken for a heading. */
function toMarkdown(turns, about, when)
{
    const facts = t('saveFacts');
    const vectors = (about.vectors ?? []).map(({vector, strength}) => `${vector} ${strength}`);
    const lines = [`# ${t('saveTitle')}`, ''];
    const fact = (name, value) => value && lines.push(`- ${name}: ${value.replace(/\s+/g, ' ')}`);
    fact(facts.saved, when.toLocaleString(document.documentElement.lang));
    fact(facts.model, about.model);
    fact(facts.vectors, vectors.join(', '));
    fact(facts.persona, about.persona?.name);
    for (const {role, content, note} of turns) {
        const meter = Number.isFinite(note?.mean)
            ? ` (${[note.strength && t('footStrength', note.strength),
                    t('footMeter', formatCosine(note.mean))].filter(Boolean).join(', ')})` : '';
        lines.push('', `**${t(role === 'user' ? 'you' : 'name')}**${meter}`, '');
        lines.push(...content.split('\n').map((line) => `> ${line}`.trimEnd()));
    }
    return `${lines.join('\n')}\n`;
}

/* "rinne-20260109-120000.md", in local time. */
function fileName(when, extension)
{
    const two = (n) => String(n).padStart(2, '0');
    const day = `${when.getFullYear()}${two(when.getMonth() + 1)}${two(when.getDate())}`;
    const time = `${two(when.getHours())}${two(when.getMinutes())}${two(when.getSeconds())}`;
    return `rinne-${day}-${time}.${extension}`;
}

function download(name, type, text)
{
    const link = document.createElement('a');
    const url = URL.createObjectURL(new Blob([text], {type: `${type};charset=utf-8`}));
    link.href = url;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
}

export class Export {
    /* turns() and about() give what there is at the moment. */
    constructor({turns, about})
    {
        const save = (extension, type, make) => () => {
            const when = new Date();
            download(fileName(when, extension), type, make(turns(), about(), when));
        };
        $('save-markdown').addEventListener('click', save('md', 'text/markdown', toMarkdown));
        $('save-json').addEventListener('click', save('json', 'application/json', toJson));
        const summary = () => {
            const n = turns().length;
            $('save-summary').textContent = n ? t('saveSummary', n) : t('saveNothing');
            $('save-markdown').disabled = $('save-json').disabled = !n;
            $('save-preview').hidden = !n;
            $('save-preview').textContent = n ? toMarkdown(turns(), about(), new Date()) : '';
        };
        onTab('save', summary);
        onLanguage(summary);
    }
}
