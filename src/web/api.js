/*
 * api.js - the server's documents over HTTP. A server that has none of them (the original's, an
 * older one) is no error: whoever asks gets null.
 */

const TIMEOUT = 8000; /* ms */

/* {ok, body}: body null if there is none. */
async function ask(path, options)
{
    try {
        const answer = await fetch(path, {
            cache: 'no-store',
            signal: AbortSignal.timeout(TIMEOUT),
            ...options,
        });
        return {ok: answer.ok, body: await answer.json()};
    } catch {
        return {ok: false, body: null};
    }
}

/* The document at `path`, or null. */
export async function getDocument(path)
{
    const {ok, body} = await ask(path, {});
    return ok ? body : null;
}

/* The entries of a list; empty if there is none. */
export async function getList(path)
{
    const list = await getDocument(path);
    return Array.isArray(list?.data) ? list.data : [];
}

/* The server's answer, which may be a refusal: {error: {reason, message}}; null if there is none. */
export async function post(path)
{
    const {body} = await ask(path, {
        method: 'POST',
        headers: {'Content-Type': 'application/json'},
        body: '{}',
    });
    return body;
}
