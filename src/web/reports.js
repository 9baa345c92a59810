/*
 * reports.js - the pages that extract, tune and migrate wrote, in a frame that can do nothing: no
 * script, no origin, no way out.
 */
import {getList} from './api.js';
import {addTexts, onLanguage, t} from './strings.js';
import {onTab} from './studio.js';

addTexts({
    ja: {
        reportsLead: 'ベクトルを作ったとき、強さを調べたときの記録です。',
        reportKinds: {extract: 'ベクトルの抽出', tune: '強さの調整', migrate: 'モデルの引っ越し'},
        reportOpen: '開く',
        reportTab: '別のタブで開く',
        reportsNone: 'まだありません。次のコマンドが書き出します:',
    },
    en: {
        reportsLead: 'What was found when vectors were made and their strength was measured.',
        reportKinds: {extract: 'Extraction', tune: 'Tuning', migrate: 'Migration'},
        reportOpen: 'Open',
        reportTab: 'Open in a tab',
        reportsNone: 'None yet. This command writes one:',
    },
});

const COMMAND = 'gyaru tune -v VECTOR -d PAIRS --report outputs/reports/NAME';
const $ = (id) => document.getElementById(id);

export class Reports {
    constructor()
    {
        this.list = [];
        onTab('reports', () => this.fetch());
        $('report-close').addEventListener('click', () => $('report-dialog').close());
        $('report-dialog').addEventListener('close', () => {
            $('report-frame').removeAttribute('src');
        });
        onLanguage(() => this.redraw());
    }

    async fetch()
    {
        const list = await getList('/v1/reports');
        this.list = list.filter(({id, kind}) => typeof id === 'string' && typeof kind === 'string');
        this.redraw();
    }

    titleOf({id, kind, vector})
    {
        const name = t('reportKinds')[kind] ?? kind;
        const place = id.includes('/') ? id.slice(0, id.lastIndexOf('/')) : '';
        return [name, vector ?? place].filter(Boolean).join(' · ');
    }

    redraw()
    {
        const format = new Intl.DateTimeFormat(document.documentElement.lang, {
            dateStyle: 'medium', timeStyle: 'short'});
        const items = this.list.map((report) => {
            const item = document.createElement('li');
            const title = document.createElement('b');
            const when = document.createElement('span');
            const open = document.createElement('button');
            item.className = 'report';
            title.textContent = this.titleOf(report);
            when.textContent = Number.isFinite(report.created)
                ? format.format(new Date(1000 * report.created)) : '';
            open.type = 'button';
            open.className = 'button button-small';
            open.textContent = t('reportOpen');
            open.setAttribute('aria-label', `${t('reportOpen')}: ${title.textContent}`);
            open.addEventListener('click', () => this.open(report));
            item.append(title, when, open);
            return item;
        });
        if (!items.length) {
            const none = document.createElement('li');
            const code = document.createElement('code');
            none.className = 'none';
            code.textContent = COMMAND;
            none.append(t('reportsNone'), code);
            items.push(none);
        }
        $('reports').replaceChildren(...items);
    }

    open(report)
    {
        const address = `/v1/reports/${report.id.split('/').map(encodeURIComponent).join('/')}`;
        $('report-title').textContent = this.titleOf(report);
        $('report-frame').title = this.titleOf(report);
        $('report-link').href = address;
        $('report-frame').src = address;
        $('report-dialog').showModal();
    }
}
