/*
 * answer.js - one answer while it runs: its text, its series, its clock.
 *
 * Tokens are counted by gauge events, one per token; a server that sends none is counted by its
 * text pieces. Speed comes from the server where it says so, else from the clock here.
 */
import {Series, span} from './chart.js';

export class Answer {
    constructor(view)
    {
        this.view = view;
        this.text = '';
        this.series = new Series();
        this.pieces = 0;
        this.startedAt = performance.now(); /* ms */
        this.firstAt = NaN;
        this.lastAt = NaN;
        this.serverSpeed = NaN;
        this.cancelled = false;
        this.forgotten = 0; /* oldest turns that neither this page nor the server could send */
    }

    token(text)
    {
        this.tick();
        this.pieces++;
        this.text += text;
        this.view.append(text);
    }

    gauge(value, calibrated, strength, speed)
    {
        this.series.push(value, calibrated, strength);
        if (Number.isFinite(speed))
            this.serverSpeed = speed;
        this.view.setMood(value);
    }

    tick()
    {
        this.lastAt = performance.now();
        if (Number.isNaN(this.firstAt))
            this.firstAt = this.lastAt;
    }

    get begun()
    {
        return this.count > 0;
    }

    get count()
    {
        return Math.max(this.series.length, this.pieces);
    }

    /* ms from sending to the first text. */
    get firstLatency()
    {
        return this.firstAt - this.startedAt;
    }

    /* tokens/s, NaN while there is nothing to measure. */
    get speed()
    {
        if (Number.isFinite(this.serverSpeed))
            return this.serverSpeed;
        return this.pieces > 1 ? 1000 * (this.count - 1) / (this.lastAt - this.firstAt) : NaN;
    }

    /* What is kept of it beside the text. end: stop, length, cancelled, lost, error. */
    note(end)
    {
        const {series} = this;
        const known = series.length > 0;
        return {
            end,
            strength: known ? span(series.strength) : null,
            mean: known ? Number(series.mean.toFixed(3)) : null,
            speed: Number.isFinite(this.speed) ? Number(this.speed.toFixed(1)) : null,
            ribbon: series.ribbon(),
            forgotten: this.forgotten,
        };
    }
}
