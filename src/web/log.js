/*
 * log.js - the conversation on screen. Everything said is set as text, never as markup.
 *
 * Streamed text grows one text node. Screen readers hear whole sentences through #spoken, not
 * every token. The view follows the newest line unless the reader has scrolled away.
 */
import {formatCosine, moodOf} from './mood.js';
import {onLanguage, t} from './strings.js';

const NEAR_END = 80; /* px from the end that still count as reading along */
const SPOKEN_KEPT = 8;
const SVG = 'http://www.w3.org/2000/svg';

export class Log {
    constructor()
    {
        this.list = document.getElementById('log');
        this.scroll = document.getElementById('scroll');
        this.welcome = document.getElementById('welcome');
        this.toEnd = document.getElementById('to-end');
        this.spoken = document.getElementById('spoken');
        this.following = true;
        this.scroll.addEventListener('scroll', () => this.noticeScroll(), {passive: true});
        this.toEnd.addEventListener('click', () => this.jump());
        /* A growing text field or a turned phone must not push the newest line out of view. */
        new ResizeObserver(() => this.follow()).observe(this.scroll);
        this.views = [];
        onLanguage(() => this.views.forEach((view) => view.redraw()));
    }

    addUser(text)
    {
        const item = document.createElement('li');
        const who = hiddenText('');
        item.className = 'turn turn-user';
        item.append(who, bubble(text));
        this.place(item, {redraw: () => { who.textContent = t('you'); }});
    }

    addAnswer()
    {
        const view = new AnswerView(this);
        this.place(view.item, view);
        return view;
    }

    place(item, view)
    {
        this.views.push(view);
        view.redraw();
        this.welcome.hidden = true;
        this.list.append(item);
        this.jump();
    }

    clear()
    {
        this.list.replaceChildren();
        this.spoken.replaceChildren();
        this.views = [];
        this.welcome.hidden = false;
    }

    speak(sentence)
    {
        const line = document.createElement('p');
        line.textContent = sentence;
        this.spoken.append(line);
        while (this.spoken.childElementCount > SPOKEN_KEPT)
            this.spoken.firstElementChild.remove();
    }

    noticeScroll()
    {
        const {scrollHeight, scrollTop, clientHeight} = this.scroll;
        this.following = scrollHeight - scrollTop - clientHeight < NEAR_END;
        this.toEnd.hidden = this.following;
    }

    follow()
    {
        if (this.following)
            this.scroll.scrollTop = this.scroll.scrollHeight;
    }

    jump()
    {
        this.following = true;
        this.toEnd.hidden = true;
        this.follow();
    }
}

class AnswerView {
    constructor(log)
    {
        this.log = log;
        this.item = document.createElement('li');
        this.item.className = 'turn turn-rinne';
        this.who = hiddenText('');
        this.bubble = bubble('');
        this.text = this.bubble.firstChild;
        this.waiting = document.createElement('span');
        this.waiting.className = 'waiting';
        this.waiting.setAttribute('role', 'img');
        this.waiting.append(...[0, 1, 2].map(() => document.createElement('i')));
        this.reading = document.createElement('span');
        this.reading.className = 'reading';
        this.waiting.append(this.reading);
        this.bubble.append(this.waiting);
        this.ribbon = document.createElement('span');
        this.ribbon.className = 'ribbon';
        this.ribbon.setAttribute('aria-hidden', 'true');
        this.foot = document.createElement('p');
        this.foot.className = 'foot';
        const body = document.createElement('div');
        body.className = 'turn-body';
        body.append(this.who, this.bubble, this.ribbon, this.foot);
        this.item.append(flower(), body);
        this.item.classList.add('running');
        this.unspoken = '';
        this.note = null;
    }

    /* How far the prompt has been read, 0..1; only a long one takes noticeable time. */
    setReading(part)
    {
        this.reading.textContent = part < 1 ? t('reading', Math.floor(100 * part)) : '';
    }

    append(text)
    {
        this.waiting.remove();
        this.text.appendData(text);
        this.unspoken += text;
        this.speakSentences(false);
        this.log.follow();
    }

    setMood(cosine)
    {
        this.item.dataset.mood = moodOf(cosine);
    }

    /* The server's own full text wins over the sum of the pieces. */
    replace(text)
    {
        this.waiting.remove();
        if (this.text.data !== text)
            this.text.data = text;
    }

    /* note: see Answer.note(). */
    finish(note)
    {
        this.waiting.remove();
        this.item.classList.remove('running');
        this.bubble.classList.toggle('bubble-empty', this.text.data === '');
        this.note = note;
        if (note.ribbon?.length) {
            this.ribbon.style.backgroundImage = gradient(note.ribbon);
            this.setMood(note.mean);
        }
        this.speakSentences(true);
        this.redraw();
        this.log.follow();
    }

    redraw()
    {
        this.who.textContent = t('name');
        this.waiting.setAttribute('aria-label', t('thinking'));
        this.bubble.dataset.empty = t('endedEmpty');
        if (!this.note)
            return;
        const {end, strength, mean, speed, forgotten} = this.note;
        const ends = {cancelled: 'endCancelled', length: 'endLength', lost: 'endLost',
                      error: 'endError'};
        const facts = [
            strength && t('footStrength', strength),
            Number.isFinite(mean) && t('footMeter', formatCosine(mean)),
            Number.isFinite(speed) && t('footSpeed', speed.toFixed(1)),
        ].filter(Boolean).map((text) => fact(text, 'fact'));
        if (forgotten)
            facts.push(fact(t('footForgotten', forgotten), 'fact fact-end'));
        if (end in ends)
            facts.unshift(fact(t(ends[end]), 'fact fact-end'));
        this.foot.replaceChildren(...facts);
    }

    speakSentences(all)
    {
        const match = all ? [this.unspoken] : this.unspoken.match(/^[^]*[。！？!?\n]/);
        if (!match)
            return;
        this.unspoken = this.unspoken.slice(match[0].length);
        if (match[0].trim())
            this.log.speak(match[0].trim());
    }
}

function bubble(text)
{
    const node = document.createElement('div');
    node.className = 'bubble';
    node.append(document.createTextNode(text));
    return node;
}

function fact(text, name)
{
    const node = document.createElement('span');
    node.className = name;
    node.textContent = text;
    return node;
}

function hiddenText(text)
{
    const node = document.createElement('span');
    node.className = 'hidden';
    node.textContent = text;
    return node;
}

function flower()
{
    const svg = document.createElementNS(SVG, 'svg');
    const use = document.createElementNS(SVG, 'use');
    svg.setAttribute('class', 'avatar');
    svg.setAttribute('aria-hidden', 'true');
    use.setAttribute('href', '#flower');
    svg.append(use);
    return svg;
}

/* The answer's meter as one line of colour, token by token. */
function gradient(values)
{
    const stops = values.map((value, i) =>
        `var(--${moodOf(value)}) ${(100 * (i + 0.5) / values.length).toFixed(1)}%`);
    return `linear-gradient(90deg, ${stops.join(', ')}${stops.length < 2 ? `, ${stops[0]}` : ''})`;
}
