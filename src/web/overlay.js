/*
 * overlay.js - shows what /overlay/ws says; keeps trying for as long as it runs, because nobody
 * reloads a browser source in mid-stream.
 *
 * Settings, in the address (docs/overlay.md):
 *   width, height  of the box in px; without them it fills the source
 *   scale          of everything in it, 0.2..5
 *   parts          of meter,strength,caption: what is shown
 *   align          left, center, right
 *   hold           seconds that a caption stays after its end
 *   lang           ja, en
 */
import {formatCosine, formatStrength, moodOf, shownPart} from './mood.js';
import {t, useLanguage} from './strings.js';
import {strengthName} from './strength.js';

const FIRST_DELAY = 500; /* ms */
const LONGEST_DELAY = 5000;
const SILENCE = 45000; /* ms without a word after which a connection counts as dead */
const LONG_CAPTION = 48; /* characters from which on it is set smaller */

const settings = read(new URLSearchParams(location.search));
const $ = (id) => document.getElementById(id);
let delay = FIRST_DELAY;
let hideTimer = 0;
let seen = null; /* answer and caption of this connection's last message */

function read(query)
{
    const number = (name, min, max, otherwise) => {
        const value = Number.parseFloat(query.get(name));
        return Number.isFinite(value) ? Math.min(Math.max(value, min), max) : otherwise;
    };
    const align = query.get('align');
    return {
        width: number('width', 50, 10000, null),
        height: number('height', 50, 10000, null),
        scale: number('scale', 0.2, 5, 1),
        hold: number('hold', 0, 3600, 6),
        parts: (query.get('parts') ?? 'meter,strength,caption').split(','),
        align: ['left', 'center', 'right'].includes(align) ? align : 'left',
        lang: query.get('lang'),
    };
}

function arrange()
{
    const {style} = document.documentElement;
    if (settings.width)
        style.setProperty('--width', `${settings.width}px`);
    if (settings.height)
        style.setProperty('--height', `${settings.height}px`);
    style.setProperty('--scale', settings.scale);
    document.body.dataset.align = settings.align;
    $('meter').hidden = !settings.parts.includes('meter');
    $('strength').hidden = !settings.parts.includes('strength');
    $('badge').hidden = $('meter').hidden && $('strength').hidden;
    $('caption').hidden = !settings.parts.includes('caption');
}

/* ---- what it shows ---- */

function show(state)
{
    const known = Number.isFinite(state.value);
    const mood = moodOf(state.value ?? NaN);
    document.body.dataset.mood = mood;
    document.body.dataset.link = state.state;
    $('number').textContent = known ? formatCosine(state.value) : '–';
    $('mood').textContent = state.state === 'loading' ? t('linkLoading') : t('moods')[mood];
    $('meter').style.setProperty('--zero', (100 * shownPart(0)).toFixed(2));
    $('meter').style.setProperty('--here', (100 * shownPart(known ? state.value : 0)).toFixed(2));
    $('meter').setAttribute('aria-valuenow', known ? state.value.toFixed(3) : '0');
    showStrength(state);
    showCaption(state);
}

function showStrength({strength, strength_min: min, strength_max: max})
{
    const part = (value) => ((value - min) / (max - min)).toFixed(4);
    $('strength-name').textContent = strengthName(strength);
    $('strength-number').textContent = formatStrength(strength);
    $('strength').style.setProperty('--at', part(strength));
    $('strength').style.setProperty('--from', part(0));
}

/* A short answer may be over before anything is heard of it: its caption shows all the same. What
 * was over before we came does not. */
function showCaption({answer, caption, answering, speaking})
{
    const box = $('caption');
    const active = answering || speaking;
    const fresh = seen !== null && (seen.answer !== answer || seen.caption !== caption);
    seen = {answer, caption};
    if (caption !== '' && $('caption-text').textContent !== caption)
        $('caption-text').textContent = caption;
    box.classList.toggle('long', $('caption-text').textContent.length > LONG_CAPTION);
    if (caption === '' || active || fresh) {
        clearTimeout(hideTimer);
        hideTimer = 0;
        box.classList.toggle('shown', caption !== '');
    }
    if (caption !== '' && !active && !hideTimer)
        hideTimer = setTimeout(() => box.classList.remove('shown'), 1000 * settings.hold);
}

/* ---- the connection ---- */

function connect()
{
    const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
    const socket = new WebSocket(`${scheme}//${location.host}/overlay/ws`);
    let silence = 0;
    const heard = () => {
        clearTimeout(silence);
        silence = setTimeout(() => socket.close(), SILENCE);
    };
    heard();
    seen = null;
    socket.onmessage = (event) => {
        heard();
        delay = FIRST_DELAY;
        const message = JSON.parse(event.data);
        if (message.type === 'overlay')
            show(message);
    };
    socket.onclose = () => {
        clearTimeout(silence);
        document.body.dataset.link = 'lost';
        /* Jitter keeps many overlays from returning in one instant. */
        setTimeout(connect, delay * (0.8 + 0.4 * Math.random()));
        delay = Math.min(1.6 * delay, LONGEST_DELAY);
    };
}

useLanguage(settings.lang);
arrange();
connect();
