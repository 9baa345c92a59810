/*
 * strength.js - slider, number entry and presets: three views of one value.
 *
 * Moves go out at most every SEND_EVERY ms and the last one always does. Values from the server
 * (ours coming back, or another client's) move the slider, but not under the user's fingers: they
 * wait until it has been still for SETTLE ms.
 */
import {formatStrength} from './mood.js';
import {onLanguage, t} from './strings.js';

const PRESETS = [0, 8, 12, 15, 20, 25];
const SEND_EVERY = 50;
const SETTLE = 400;

export class Strength {
    /* send(value) returns false if it could not; onChange(value) hears of every move. */
    constructor({send, onChange})
    {
        this.send = send;
        this.onChange = onChange;
        this.slider = document.getElementById('strength');
        this.number = document.getElementById('strength-number');
        this.name = document.getElementById('strength-name');
        this.presets = document.getElementById('presets');
        this.value = Number(this.slider.value);
        this.unsent = false; /* moved while the server was away */
        this.remote = null;
        this.sentAt = -Infinity;
        this.movedAt = -Infinity;
        this.sendTimer = 0;
        this.settleTimer = 0;
        this.buttons = PRESETS.map((value) => this.addPreset(value));
        this.listen();
        onLanguage(() => this.redraw());
    }

    addPreset(value)
    {
        const button = document.createElement('button');
        const number = document.createElement('span');
        const name = document.createElement('span');
        button.type = 'button';
        button.className = 'preset';
        button.dataset.value = value;
        number.className = 'preset-number';
        number.textContent = value;
        name.className = 'preset-name';
        button.append(number, name);
        button.addEventListener('click', () => this.move(value));
        this.presets.append(button);
        return {value, button, name};
    }

    listen()
    {
        this.slider.addEventListener('input', () => this.move(Number(this.slider.value)));
        this.number.addEventListener('input', () => {
            const value = this.number.valueAsNumber;
            if (Number.isFinite(value) && this.number.validity.valid)
                this.move(value);
        });
        /* Leaving the field settles whatever was half typed. */
        this.number.addEventListener('change', () => {
            const value = this.number.valueAsNumber;
            if (Number.isFinite(value))
                this.move(Math.round(value / this.step) * this.step);
            this.redraw(true);
        });
        this.number.addEventListener('keydown', (event) => {
            if (event.key === 'Enter')
                this.number.dispatchEvent(new Event('change'));
        });
    }

    get min()
    {
        return Number(this.slider.min);
    }

    get max()
    {
        return Number(this.slider.max);
    }

    get step()
    {
        return Number(this.slider.step);
    }

    setRange(min, max)
    {
        if (!(min < max))
            return;
        for (const input of [this.slider, this.number]) {
            input.min = min;
            input.max = max;
        }
        this.redraw();
    }

    /* The user moves. */
    move(value)
    {
        this.value = Math.min(Math.max(value, this.min), this.max);
        this.movedAt = performance.now();
        this.redraw();
        this.onChange(this.value);
        if (!this.sendTimer) {
            const wait = Math.max(0, this.sentAt + SEND_EVERY - performance.now());
            this.sendTimer = setTimeout(() => this.flush(), wait);
        }
    }

    flush()
    {
        this.sendTimer = 0;
        this.sentAt = performance.now();
        this.unsent = !this.send(this.value);
    }

    /* The server says where it stands. */
    receive(value)
    {
        if (!Number.isFinite(value))
            return;
        this.remote = value;
        clearTimeout(this.settleTimer);
        const still = this.movedAt + SETTLE - performance.now();
        if (still > 0)
            this.settleTimer = setTimeout(() => this.follow(), still);
        else
            this.follow();
    }

    follow()
    {
        this.value = this.remote;
        this.redraw();
        this.onChange(this.value);
    }

    /* A new connection: what was set meanwhile goes out, else the server's value counts. */
    connected(serverValue)
    {
        if (this.unsent)
            this.flush();
        else
            this.receive(serverValue);
    }

    /* The number field is left alone while the user types in it, unless `settle`. */
    redraw(settle = false)
    {
        const part = (value) => ((value - this.min) / (this.max - this.min)).toFixed(4);
        const style = this.slider.parentElement.style;
        const name = strengthName(this.value);
        this.slider.value = this.value;
        this.slider.setAttribute('aria-valuetext', `${formatStrength(this.value)} ${name}`);
        style.setProperty('--at', part(this.value));
        style.setProperty('--zero', part(0));
        if (settle || document.activeElement !== this.number)
            this.number.value = this.value.toFixed(1);
        this.name.textContent = name;
        PRESETS.forEach((value, i) => {
            const {button, name: label} = this.buttons[i];
            label.textContent = t('presetNames')[i];
            button.setAttribute('aria-pressed', String(value === this.value));
        });
    }
}

/* The highest preset reached names the place. */
export function strengthName(value)
{
    const i = PRESETS.findLastIndex((preset) => value >= preset);
    return i < 0 ? t('reverse') : t('presetNames')[i];
}
