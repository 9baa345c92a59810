/*
 * store.js - what the page keeps between visits, in localStorage. Storage may be forbidden or full:
 * the page then simply forgets.
 */

export function load(key, fallback)
{
    try {
        return JSON.parse(localStorage.getItem(key)) ?? fallback;
    } catch {
        return fallback;
    }
}

/* False if it could not be kept. */
export function save(key, value)
{
    try {
        localStorage.setItem(key, JSON.stringify(value));
        return true;
    } catch {
        return false;
    }
}
