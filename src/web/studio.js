/*
 * studio.js - the sheet with everything that is set rather than played, and its tabs.
 *
 * A button with data-studio="NAME" opens it at that tab, "" where it was last. A module that has a
 * panel hears of its opening through onTab().
 */
import {addTexts} from './strings.js';

addTexts({
    ja: {
        studio: '設定',
        tabPersona: '人格',
        tabVectors: 'ベクトル',
        tabSampling: '生成',
        tabReports: 'レポート',
        tabSave: '保存',
    },
    en: {
        studio: 'Settings',
        tabPersona: 'Persona',
        tabVectors: 'Vectors',
        tabSampling: 'Sampling',
        tabReports: 'Reports',
        tabSave: 'Save',
    },
});

const sheet = document.getElementById('studio');
const notice = document.getElementById('studio-notice');
const tabs = [...sheet.querySelectorAll('.tab')];
const panels = [...sheet.querySelectorAll('.studio-panel')];
const listeners = {};
let current = tabs[0].dataset.tab;

for (const [i, tab] of tabs.entries()) {
    const {tab: name} = tab.dataset;
    const panel = panels.find((candidate) => candidate.dataset.tab === name);
    tab.id = `tab-${name}`;
    tab.setAttribute('role', 'tab');
    tab.setAttribute('aria-controls', `panel-${name}`);
    panel.id = `panel-${name}`;
    panel.setAttribute('role', 'tabpanel');
    panel.setAttribute('aria-labelledby', tab.id);
    tab.addEventListener('click', () => show(name));
    tab.addEventListener('keydown', (event) => {
        const steps = {ArrowRight: 1, ArrowLeft: -1};
        const to = event.key === 'Home' ? 0 : event.key === 'End' ? tabs.length - 1
            : event.key in steps ? (i + steps[event.key] + tabs.length) % tabs.length : -1;
        if (to < 0)
            return;
        event.preventDefault();
        show(tabs[to].dataset.tab);
        tabs[to].focus();
    });
}

for (const button of document.querySelectorAll('[data-studio]'))
    button.addEventListener('click', () => openStudio(button.dataset.studio));
document.getElementById('studio-close').addEventListener('click', () => sheet.close());
sheet.addEventListener('click', (event) => {
    /* A click beside the sheet hits the dialog itself. */
    const box = sheet.getBoundingClientRect();
    if (event.target === sheet && (event.clientX < box.left || event.clientX > box.right))
        sheet.close();
});
sheet.addEventListener('close', () => setNotice(''));

function show(name)
{
    current = name;
    for (const tab of tabs) {
        const here = tab.dataset.tab === name;
        tab.setAttribute('aria-selected', String(here));
        tab.tabIndex = here ? 0 : -1;
    }
    for (const panel of panels)
        panel.hidden = panel.dataset.tab !== name;
    for (const listener of sheet.open ? listeners[name] ?? [] : [])
        listener();
}

function openStudio(name)
{
    if (!sheet.open)
        sheet.showModal();
    show(name || current);
    tabs.find((tab) => tab.dataset.tab === current).focus();
}

export function studioShows(name)
{
    return sheet.open && current === name;
}

/* Calls `listener` whenever the tab comes into view. */
export function onTab(name, listener)
{
    (listeners[name] ??= []).push(listener);
}

/* The page's notice lies behind the sheet; while that is open, this is where it is read. */
export function setNotice(text)
{
    notice.textContent = text;
    notice.hidden = text === '' || !sheet.open;
}

show(current);
