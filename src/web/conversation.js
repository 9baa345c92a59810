/*
 * conversation.js - what was said, kept in the tab's sessionStorage so that a reload loses nothing.
 *
 * A turn is {role: 'user'|'assistant', content, note, at}; `note` of an answer says how it went
 * (see answer.js), `at` when it was said (ms since 1970); both never leave the page. The server keeps a conversation per connection, so
 * the turns travel as `history` with the first message of each new one.
 */

const KEY = 'rinne.conversation';
const encoder = new TextEncoder();

/* Bytes that a value takes as JSON in a message. */
export function jsonBytes(value)
{
    return encoder.encode(JSON.stringify(value)).length;
}

export class Conversation {
    constructor()
    {
        this.turns = load();
    }

    add(role, content, note = null)
    {
        this.turns.push({role, content, note, at: Date.now()});
        return this.save();
    }

    clear()
    {
        this.turns = [];
        return this.save();
    }

    /* {turns, forgotten}: the newest turns that fit into `limit` bytes of JSON as the server wants
     * them, and how many older ones do not. A question that got no answer is left out, as the
     * server does. */
    history(limit)
    {
        const answered = this.turns.filter((turn, i) =>
            turn.content !== '' && (turn.role !== 'user' || this.turns[i + 1]?.content));
        const turns = answered.map(({role, content}) => ({role, content}));
        let used = 0;
        let first = turns.length;
        while (first > 0) {
            used += jsonBytes(turns[first - 1]) + 1;
            if (used > limit)
                break;
            first--;
        }
        return {turns: turns.slice(first), forgotten: first};
    }

    /* False if the browser would not keep it. */
    save()
    {
        try {
            sessionStorage.setItem(KEY, JSON.stringify(this.turns));
            return true;
        } catch {
            return false;
        }
    }
}

function load()
{
    try {
        const turns = JSON.parse(sessionStorage.getItem(KEY) ?? '[]');
        return turns.filter((turn) => (turn.role === 'user' || turn.role === 'assistant')
                                      && typeof turn.content === 'string');
    } catch {
        return [];
    }
}
