/*
 * api.js - the server's documents over HTTP. A server that has none of them (the original's, an
 * older one) is no error: whoever asks gets null.
 */

const TIMEOUT = 8000; /* ms */

async function ask(path, options)
{
    try {
        const answer = await fetch(path, {
            cache: 'no-store',
            signal: AbortSignal.timeout(TIMEOUT),
            ...options,
        });
        return answer.ok ? await answer.json() : null;
    } catch {
        return null;
    }
}

/* The document at `path`, or null. */
export function getDocument(path)
{
    return ask(path, {});
}

/* The entries of a list; empty if there is none. */
export async function getList(path)
{
    const list = await getDocument(path);
    return Array.isArray(list?.data) ? list.data : [];
}

export function post(path)
{
    return ask(path, {
        method: 'POST',
        headers: {'Content-Type': 'application/json'},
        body: '{}',
    });
}
