/*
 * connection.js - one WebSocket to the server that came with the page, kept alive.
 *
 * States, in onState(state, detail):
 *   'connecting'  the first try
 *   'ready'       open; send() works
 *   'loading'     the server is up but its model is not (detail: percent or null)
 *   'waiting'     lost; the next try comes in `detail` seconds
 *   'retrying'    that try
 * While the socket is down, /health tells a loading server from one that is gone.
 */

const FIRST_DELAY = 500; /* ms */
const LONGEST_DELAY = 10000;
const LOADING_DELAY = 1000;
const HEALTH_TIMEOUT = 3000;

export class Connection {
    constructor({onState, onMessage})
    {
        this.onState = onState;
        this.onMessage = onMessage;
        this.state = 'connecting';
        this.socket = null;
        this.delay = FIRST_DELAY;
        this.timer = 0;
        this.retryAt = 0;
        /* Coming back to the tab or the network is a better moment than any timer. */
        window.addEventListener('online', () => this.hurry());
        document.addEventListener('visibilitychange', () => {
            if (!document.hidden)
                this.hurry();
        });
    }

    get ready()
    {
        return this.state === 'ready';
    }

    open()
    {
        clearTimeout(this.timer);
        const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
        const socket = new WebSocket(`${scheme}//${location.host}/ws`);
        this.socket = socket;
        socket.onopen = () => {
            this.delay = FIRST_DELAY;
            this.change('ready', null);
        };
        socket.onmessage = (event) => this.receive(event.data);
        socket.onclose = () => {
            if (this.socket === socket)
                this.lost();
        };
    }

    /* True if the message went out. */
    send(message)
    {
        if (!this.ready || this.socket.readyState !== WebSocket.OPEN)
            return false;
        this.socket.send(JSON.stringify(message));
        return true;
    }

    receive(data)
    {
        let message;
        try {
            message = JSON.parse(data);
        } catch {
            console.warn('a message from the server is no JSON');
            return;
        }
        if (message && typeof message.type === 'string')
            this.onMessage(message);
    }

    change(state, detail)
    {
        this.state = state;
        this.onState(state, detail);
    }

    async lost()
    {
        this.socket = null;
        this.change('retrying', null);
        const health = await probe();
        if (this.socket)
            return;
        if (health.loading) {
            this.change('loading', health.percent);
            this.timer = setTimeout(() => this.open(), LOADING_DELAY);
            return;
        }
        /* Jitter keeps many pages from returning in one instant. */
        const delay = this.delay * (0.8 + 0.4 * Math.random());
        this.delay = Math.min(this.delay * 2, LONGEST_DELAY);
        this.retryAt = performance.now() + delay;
        this.countDown();
    }

    countDown()
    {
        const left = this.retryAt - performance.now();
        if (left <= 0) {
            this.change('retrying', null);
            this.open();
            return;
        }
        this.change('waiting', Math.ceil(left / 1000));
        this.timer = setTimeout(() => this.countDown(), Math.min(left, 1000));
    }

    hurry()
    {
        if (this.state !== 'waiting')
            return;
        clearTimeout(this.timer);
        this.delay = FIRST_DELAY;
        this.change('retrying', null);
        this.open();
    }
}

/* { loading, percent }: percent is null while unknown. */
async function probe()
{
    try {
        const answer = await fetch('/health', {
            cache: 'no-store',
            signal: AbortSignal.timeout(HEALTH_TIMEOUT),
        });
        if (answer.status !== 503)
            return {loading: false, percent: null};
        const body = await answer.json().catch(() => ({}));
        const percent = Number.isFinite(body.progress) ? Math.round(100 * body.progress) : null;
        return {loading: /loading/i.test(body.error?.message), percent};
    } catch {
        return {loading: false, percent: null};
    }
}
