/*
 * mood.js - the meter's three ranges and the numbers around them, known in one place.
 */

export const GYARU_FROM = 0.30; /* raw cosine */
export const OVER_FROM = 0.50;

/* What dial and chart show of -1..1: the first range ends exactly in the dial's middle. */
export const SHOWN_MIN = -0.2;
export const SHOWN_MAX = 0.8;

/* 'calm' (cyan), 'gyaru' (pink), 'over' (red); 'none' without a value. */
export function moodOf(cosine)
{
    if (!Number.isFinite(cosine))
        return 'none';
    return cosine > OVER_FROM ? 'over' : cosine >= GYARU_FROM ? 'gyaru' : 'calm';
}

/* Position of a cosine on the shown scale, 0..1. */
export function shownPart(cosine)
{
    const part = (cosine - SHOWN_MIN) / (SHOWN_MAX - SHOWN_MIN);
    return Math.min(Math.max(part, 0), 1);
}

/* A minus sign that lines up with digits; "-0.00" is zero. */
export function formatCosine(cosine)
{
    return signed(cosine, 2);
}

export function formatStrength(strength)
{
    return signed(strength, 1);
}

function signed(value, digits)
{
    const text = Math.abs(value).toFixed(digits);
    return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}
