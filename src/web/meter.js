/*
 * meter.js - the dial: raw cosine with its three ranges, and the calibrated gauge beneath.
 */
import {formatCosine, GYARU_FROM, moodOf, OVER_FROM, shownPart} from './mood.js';
import {onLanguage, t} from './strings.js';

const CENTRE = {x: 120, y: 124};
const LABEL_RADIUS = 112;
const SVG = 'http://www.w3.org/2000/svg';

export class Meter {
    constructor()
    {
        this.dial = document.getElementById('meter');
        this.number = document.getElementById('meter-number');
        this.name = document.getElementById('meter-name');
        this.calibrated = document.getElementById('calibrated');
        this.calibratedNumber = document.getElementById('calibrated-number');
        this.layerLabel = document.getElementById('layer');
        this.layer = null;
        this.value = NaN;
        drawLabels(document.getElementById('dial-ticks'));
        onLanguage(() => this.redraw());
    }

    setLayer(layer)
    {
        this.layer = Number.isInteger(layer) ? layer : null;
        this.redraw();
    }

    /* cosine: raw, -1..1, NaN for none; calibrated: NaN or undefined if unknown. The number is as it
     * is; the bar ends at 0 and 1, and shows that it went on. */
    set(cosine, calibrated)
    {
        this.value = cosine;
        this.redraw();
        const known = Number.isFinite(calibrated);
        this.calibrated.hidden = !known;
        if (!known)
            return;
        const shown = Math.min(Math.max(calibrated, 0), 1);
        this.calibrated.style.setProperty('--part', shown.toFixed(3));
        this.calibrated.dataset.beyond = calibrated > 1 ? 'over' : calibrated < 0 ? 'under' : '';
        this.calibratedNumber.textContent = `${Math.round(100 * calibrated) + 0}%`;
    }

    redraw()
    {
        const mood = moodOf(this.value);
        const known = mood !== 'none';
        const text = known ? formatCosine(this.value) : '–';
        document.body.dataset.mood = mood;
        this.number.textContent = text;
        this.name.textContent = t('moods')[mood];
        this.layerLabel.textContent = this.layer === null ? '' : t('layer', this.layer);
        this.calibrated.title = t('calibratedHint');
        this.dial.setAttribute('aria-valuenow', known ? this.value.toFixed(3) : '0');
        this.dial.setAttribute('aria-valuetext', `${text} ${t('moods')[mood]}`);

        this.dial.style.setProperty('--zero', (100 * shownPart(0)).toFixed(2));
        this.dial.style.setProperty('--here', (100 * shownPart(known ? this.value : 0)).toFixed(2));
    }
}

function drawLabels(group)
{
    for (const value of [0, GYARU_FROM, OVER_FROM]) {
        const angle = Math.PI * (1 - shownPart(value));
        const label = document.createElementNS(SVG, 'text');
        label.setAttribute('x', (CENTRE.x + LABEL_RADIUS * Math.cos(angle)).toFixed(1));
        label.setAttribute('y', (CENTRE.y - LABEL_RADIUS * Math.sin(angle)).toFixed(1));
        label.textContent = value.toFixed(1).replace(/^0\.0$/, '0');
        group.append(label);
    }
}
