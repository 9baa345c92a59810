/*
 * conversation.js - what was said, kept in the tab's sessionStorage so that a reload loses nothing.
 *
 * A turn is {role: 'user'|'assistant', content, note}; `note` of an answer says how it went
 * (see answer.js) and never leaves the page. The server keeps a conversation per connection, so
 * the turns travel as `history` with the first message of each new one.
 */

const KEY = 'rinne.conversation';

export class Conversation {
    constructor()
    {
        this.turns = load();
    }

    add(role, content, note = null)
    {
        this.turns.push({role, content, note});
        return this.save();
    }

    clear()
    {
        this.turns = [];
        return this.save();
    }

    /* Turns as the server wants them; an answer that never came is none. */
    history()
    {
        return this.turns.filter((turn) => turn.content !== '')
            .map(({role, content}) => ({role, content}));
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
