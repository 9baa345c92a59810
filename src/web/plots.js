/*
 * plots.js - what a vector is like, layer by layer: how well it separates, how large it is.
 *
 * Drawn from GET /v1/vectors/NAME; a file that says nothing of its layers shows the norms alone.
 */
import {addTexts, t} from './strings.js';

addTexts({
    ja: {
        plotSeparation: '分かれ方（Cohen の d）',
        plotSize: '大きさ（残差の長さに対する割合）',
        plotNorm: '大きさ（ノルム）',
        plotMeter: (layer) => `メーターは第${layer}層`,
        plotLabel: (title, n, best, value) => `${title}: ${n}層。最大は第${best}層の ${value}。`,
        plotNone: '層の記録がありません。',
    },
    en: {
        plotSeparation: 'Separation (Cohen’s d)',
        plotSize: 'Size (share of the residual’s length)',
        plotNorm: 'Size (norm)',
        plotMeter: (layer) => `The meter is at layer ${layer}`,
        plotLabel: (title, n, best, value) => `${title}: ${n} layers. Largest at layer ${best}: ${value}.`,
        plotNone: 'Nothing is known of its layers.',
    },
});

const SVG = 'http://www.w3.org/2000/svg';
const WIDTH = 320;
const HEIGHT = 120;
const BOX = {left: 34, right: 316, top: 8, bottom: 98};

function node(name, attributes, text)
{
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes))
        element.setAttribute(key, value);
    if (text !== undefined)
        element.textContent = text;
    return element;
}

/* A round number at or above the largest value. */
function ceiling(value)
{
    const power = 10 ** Math.floor(Math.log10(value));
    return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value) ?? value;
}

/* points: [{layer, value}], ascending; meter: the layer to mark. */
function plot(title, points, meter)
{
    const figure = document.createElement('figure');
    const caption = document.createElement('figcaption');
    const svg = node('svg', {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', class: 'plot'});
    const best = points.reduce((a, b) => b.value > a.value ? b : a);
    const top = ceiling(Math.max(best.value, 1e-9));
    const first = points[0].layer;
    const slot = (BOX.right - BOX.left) / (points[points.length - 1].layer - first + 1);
    const x = (layer) => BOX.left + slot * (layer - first);
    const y = (value) => BOX.bottom - (BOX.bottom - BOX.top) * Math.max(value, 0) / top;
    caption.textContent = title;
    svg.setAttribute('aria-label', t('plotLabel', title, points.length, best.layer,
                                     Number(best.value.toPrecision(3))));
    for (const value of [0, top / 2, top]) {
        svg.append(node('path', {d: `M${BOX.left} ${y(value)}H${BOX.right}`, class: 'plot-grid'}),
                   node('text', {x: BOX.left - 5, y: y(value) + 3, class: 'plot-y'},
                        Number(value.toPrecision(3))));
    }
    const every = Math.ceil(points.length / 12);
    for (const [i, {layer, value}] of points.entries()) {
        svg.append(node('rect', {x: x(layer) + 0.12 * slot, width: 0.76 * slot, y: y(value),
                                 height: BOX.bottom - y(value), rx: Math.min(3, 0.2 * slot),
                                 class: layer === meter ? 'plot-bar plot-meter' : 'plot-bar'}));
        if (i % every === 0)
            svg.append(node('text', {x: x(layer) + slot / 2, y: HEIGHT - 8, class: 'plot-x'}, layer));
    }
    figure.append(caption, svg);
    return figure;
}

/* details: the answer of GET /v1/vectors/NAME. */
export function layerPlots(details)
{
    const box = document.createElement('div');
    const directions = Array.isArray(details?.directions) ? details.directions : [];
    const layers = directions.map(({layer}) => layer).filter(Number.isInteger);
    const statistics = details?.statistics ?? {};
    const series = (read) => layers.map((layer) => ({layer, value: read(statistics[layer] ?? {}, layer)}))
        .filter(({value}) => Number.isFinite(value));
    const plots = [[t('plotSeparation'), series((s) => s.cohens_d)],
                   [t('plotSize'), series((s) => s.relative_norm)]]
        .filter(([, points]) => points.length);
    if (plots.length < 2) {
        plots.push([t('plotNorm'),
                    series((s, layer) => directions.find((one) => one.layer === layer)?.norm)]);
    }
    box.className = 'plots';
    box.append(...plots.filter(([, points]) => points.length)
        .map(([title, points]) => plot(title, points, details.layer)));
    const note = document.createElement('p');
    note.className = 'plot-note';
    note.textContent = !box.childElementCount ? t('plotNone')
        : Number.isInteger(details.layer) ? t('plotMeter', details.layer) : '';
    box.append(note);
    return box;
}
