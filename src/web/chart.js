/*
 * chart.js - meter and strength over the tokens of one answer, on a canvas.
 *
 * Left scale: raw cosine, the line coloured by its range. Right scale: strength, a stepped line. A
 * thin line is the calibrated gauge, 0 to 1 over the whole height.
 * Series is the data (pushed per token); the chart draws whichever series it was given, once per
 * animation frame at most.
 */
import {formatCosine, formatStrength, GYARU_FROM, moodOf, OVER_FROM, SHOWN_MAX, SHOWN_MIN,
        shownPart} from './mood.js';
import {onLanguage, t} from './strings.js';

const FEWEST_SLOTS = 48; /* tokens that the empty chart has room for */
const RIBBON_LENGTH = 40;
const GAUGE_TOKENS = 16; /* the gauge of one token says little, their mean much */

export class Series {
    constructor()
    {
        this.meter = [];
        this.gauge = []; /* as it comes */
        this.calibrated = []; /* what is shown: the mean over the newest */
        this.strength = [];
    }

    get length()
    {
        return this.meter.length;
    }

    push(meter, calibrated, strength)
    {
        this.meter.push(meter);
        this.gauge.push(calibrated);
        this.calibrated.push(mean(this.gauge.slice(-GAUGE_TOKENS).filter(Number.isFinite)));
        this.strength.push(strength);
    }

    get mean()
    {
        return mean(this.meter);
    }

    /* At most RIBBON_LENGTH means of neighbours, two digits: small enough to be stored. */
    ribbon()
    {
        const n = Math.min(this.length, RIBBON_LENGTH);
        return Array.from({length: n}, (_, i) => {
            const from = Math.floor(i * this.length / n);
            const part = this.meter.slice(from, Math.floor((i + 1) * this.length / n));
            return Number(mean(part).toFixed(2));
        });
    }
}

/* NaN of nothing */
function mean(values)
{
    return values.reduce((sum, value) => sum + value, 0) / values.length;
}

export class Chart {
    constructor()
    {
        this.canvas = document.getElementById('chart');
        this.context = this.canvas.getContext('2d');
        this.readout = document.getElementById('chart-strength');
        this.series = new Series();
        this.range = {min: -10, max: 30};
        this.frame = 0;
        const style = getComputedStyle(document.documentElement);
        this.colour = (name) => style.getPropertyValue(`--${name}`).trim();
        new ResizeObserver(() => this.changed()).observe(this.canvas);
        onLanguage(() => {
            this.describe();
            this.changed();
        });
    }

    show(series)
    {
        this.series = series;
        this.describe();
        this.changed();
    }

    setRange(min, max)
    {
        if (min < max)
            this.range = {min, max};
        this.changed();
    }

    changed()
    {
        if (!this.frame)
            this.frame = requestAnimationFrame(() => this.draw());
        const n = this.series.length;
        this.readout.textContent = n ? formatStrength(this.series.strength[n - 1]) : '';
    }

    /* The words for those who cannot see it; called when an answer ends, not per token. */
    describe()
    {
        const {series} = this;
        const n = series.length;
        const text = n === 0 ? t('chartEmpty')
            : t('chartLabel', n, formatCosine(series.mean), formatCosine(Math.max(...series.meter)),
                span(series.strength));
        this.canvas.setAttribute('aria-label', text);
    }

    draw()
    {
        this.frame = 0;
        const scale = window.devicePixelRatio || 1;
        const width = this.canvas.clientWidth;
        const height = this.canvas.clientHeight;
        if (!width || !height)
            return;
        this.canvas.width = Math.round(width * scale);
        this.canvas.height = Math.round(height * scale);
        const c = this.context;
        c.setTransform(scale, 0, 0, scale, 0, 0);
        const slim = height < 90;
        const box = slim ? {left: 2, right: width - 2, top: 4, bottom: height - 4}
                         : {left: 26, right: width - 26, top: 8, bottom: height - 10};
        const slots = Math.max(FEWEST_SLOTS, this.series.length);
        const x = (i) => box.left + (box.right - box.left) * i / (slots - 1);
        const yMeter = (v) => box.bottom - (box.bottom - box.top) * shownPart(v);
        const yStrength = (v) => box.bottom - (box.bottom - box.top)
                                 * (v - this.range.min) / (this.range.max - this.range.min);
        this.drawBands(c, box, yMeter);
        if (!slim)
            this.drawScales(c, box, yMeter, yStrength);
        if (this.series.length) {
            this.drawStrength(c, x, yStrength);
            this.drawCalibrated(c, x, box);
            this.drawMeter(c, x, yMeter);
        }
    }

    drawBands(c, box, y)
    {
        const bands = [['calm', SHOWN_MIN, GYARU_FROM], ['gyaru', GYARU_FROM, OVER_FROM],
                       ['over', OVER_FROM, SHOWN_MAX]];
        for (const [name, from, to] of bands) {
            c.fillStyle = this.colour(name);
            c.globalAlpha = 0.07;
            c.fillRect(box.left, y(to), box.right - box.left, y(from) - y(to));
            if (from === SHOWN_MIN)
                continue;
            c.globalAlpha = 0.35;
            c.fillRect(box.left, y(from) - 0.5, box.right - box.left, 1);
        }
        c.globalAlpha = 1;
    }

    drawScales(c, box, yMeter, yStrength)
    {
        c.font = '10px system-ui, sans-serif';
        c.textBaseline = 'middle';
        c.fillStyle = this.colour('muted');
        c.textAlign = 'right';
        for (const value of [0, GYARU_FROM, OVER_FROM])
            c.fillText(value.toFixed(1), box.left - 5, yMeter(value));
        c.textAlign = 'left';
        c.fillStyle = this.colour('gold');
        for (const value of [this.range.min, 0, 10, 20, this.range.max])
            c.fillText(String(value).replace('-', '−'), box.right + 5, yStrength(value));
    }

    drawStrength(c, x, y)
    {
        const values = this.series.strength;
        c.strokeStyle = this.colour('gold');
        c.lineWidth = 1.5;
        c.setLineDash([4, 3]);
        c.beginPath();
        values.forEach((value, i) => {
            if (i > 0)
                c.lineTo(x(i), y(values[i - 1]));
            c.lineTo(x(i), y(value));
        });
        if (values.length === 1)
            c.lineTo(x(0) + 3, y(values[0]));
        c.stroke();
        c.setLineDash([]);
    }

    drawCalibrated(c, x, box)
    {
        const values = this.series.calibrated;
        c.strokeStyle = this.colour('calibrated');
        c.lineWidth = 1.25;
        c.lineJoin = 'round';
        c.globalAlpha = 0.6;
        c.beginPath();
        for (const [i, value] of values.entries()) {
            const part = Math.min(Math.max(value, 0), 1);
            if (Number.isFinite(value))
                c.lineTo(x(i), box.bottom - (box.bottom - box.top) * part);
        }
        c.stroke();
        c.globalAlpha = 1;
    }

    /* One path per run of tokens in the same range, each joined to the token before it. */
    drawMeter(c, x, y)
    {
        const values = this.series.meter;
        c.lineWidth = 2;
        c.lineJoin = 'round';
        c.lineCap = 'round';
        for (let start = 0; start < values.length;) {
            const mood = moodOf(values[start]);
            let end = start + 1;
            while (end < values.length && moodOf(values[end]) === mood)
                end++;
            c.strokeStyle = this.colour(mood);
            c.beginPath();
            for (let i = Math.max(start - 1, 0); i < end; i++)
                c.lineTo(x(i), y(values[i]));
            c.stroke();
            start = end;
        }
        const last = values.length - 1;
        c.fillStyle = this.colour(moodOf(values[last]));
        c.beginPath();
        c.arc(x(last), y(values[last]), 3.5, 0, 2 * Math.PI);
        c.fill();
    }
}

/* "12.0" or "8.0→20.0": where the strength began and ended. */
export function span(strengths)
{
    const first = formatStrength(strengths[0]);
    const last = formatStrength(strengths[strengths.length - 1]);
    return first === last ? last : `${first}→${last}`;
}
