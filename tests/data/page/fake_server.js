/*
 * fake_server.js - stands in for /ws and /health inside the browser, so that a test decides what
 * the server says and when. Runs before the page's own scripts.
 *
 *   fake.up       sockets open (else they fail, as with a server that is gone)
 *   fake.hello    sent when a socket opens; null: nothing, as the original's server
 *   fake.health   [status, body] of /health; null: no answer
 *   fake.sent     what the page sent, parsed, with `at` in ms
 *   fake.say(m)   the server speaks; fake.drop() ends the connection
 */
const fake = {
    up: true,
    hello: {
        type: 'hello', model: 'model', vector: 'vector', fingerprint: 'match', strength: 12,
        strength_min: -10, strength_max: 30, gauge_layer: 8, busy: false,
        max_message_bytes: 65536,
    },
    health: null,
    sent: [],
    sockets: 0,
    socket: null,
    say(message)
    {
        fake.socket.onmessage({data: JSON.stringify(message)});
    },
    token(text, value, strength)
    {
        fake.say({type: 'gauge', value, calibrated: value * 1.5, layer: 8, strength,
                  tokens_per_second: 50});
        fake.say({type: 'token', content: text});
    },
    drop()
    {
        fake.socket.readyState = 3;
        fake.socket.onclose({code: 1006});
    },
};
Object.assign(fake, window.fakeStart ?? {});

window.WebSocket = class {
    static OPEN = 1;

    constructor()
    {
        this.readyState = 0;
        fake.sockets++;
        fake.socket = this;
        setTimeout(() => {
            this.readyState = fake.up ? 1 : 3;
            if (!fake.up) {
                this.onclose({code: 1006});
                return;
            }
            this.onopen({});
            if (fake.hello)
                fake.say(fake.hello);
        });
    }

    send(text)
    {
        fake.sent.push({...JSON.parse(text), at: performance.now()});
    }
};

window.fetch = async () => {
    if (!fake.health)
        throw new TypeError('Failed to fetch');
    const [status, body] = fake.health;
    return new Response(JSON.stringify(body), {status});
};

window.fake = fake;
