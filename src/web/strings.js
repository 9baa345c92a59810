/*
 * strings.js - the page's texts in Japanese and English, and the switch between them.
 *
 * Static texts are found by data-i18n (text), data-i18n-label (aria-label and title) and
 * data-i18n-placeholder; texts with values are functions. Both tables have the same keys. The
 * texts of stage and console stand here; a module of its own brings its own with addTexts(), when
 * it is loaded.
 */

const tables = {
    ja: {
        name: 'りんね',
        otherLanguage: 'English',
        skip: '入力欄へ',
        chat: '会話',
        you: 'あなた',
        close: '閉じる',
        toEnd: '↓ 最新へ',

        linkConnecting: '接続しています…',
        linkReady: 'つながっています',
        linkAnswering: '話しています…',
        linkLoading: 'モデルを準備中…',
        linkLoadingDetail: (percent) => percent === null ? '' : `${percent}%`,
        linkWaiting: '切断中',
        linkWaitingDetail: (seconds) => `${seconds}秒後に再接続`,
        linkRetrying: '再接続しています…',
        unverified: '（照合できず）',

        welcomeTitle: 'りんねに話しかけてみて',
        welcomeText: '「ギャルの強さ」は、返事の途中でも動かせます。',
        starters: '話題の例',
        starterTexts: ['こんにちは！', '自己紹介して', '週末は何するの？', '好きな食べ物は？'],
        loadingTitle: 'りんねが支度しています',
        loadingText: 'モデルを読み込んでいます。終わると自動でつながります。',
        offlineTitle: 'サーバーにつながりません',
        offlineText: '自動でつなぎ直します。会話は残っています。',

        input: 'りんねへのメッセージ',
        placeholder: 'りんねに話しかける…',
        hint: 'Enter で送信 ・ Shift+Enter で改行 ・ Esc で止める',
        send: '送信',
        cancel: '止める (Esc)',
        thinking: '考えています',
        reading: (percent) => `会話を読み返しています ${percent}%`,

        strength: 'ギャルの強さ',
        strengthNumber: '強さの数値',
        presets: '強さのプリセット',
        presetNames: ['しらふ', 'ほろ酔い', 'いつもの', '濃いめ', 'へべれけ', '過剰摂取'],
        reverse: '逆ギャル',

        meter: 'ギャルメーター',
        moods: { none: '待機中', calm: 'ふつう', gyaru: 'ギャル', over: 'オーバードーズ' },
        layer: (n) => `第${n}層`,
        calibrated: '文の口調',
        calibratedHint: '書かれた文だけを見た口調です。0% はふつうの文、100% はギャルの文の平均。'
            + '強さを足した分は入りません（直近16トークンの平均）。',

        chart: 'この返事の流れ',
        keyMeter: 'メーター',
        keyStrength: '強さ',
        chartEmpty: '返事が始まると、ここにメーターと強さが描かれます。',
        chartLabel: (n, mean, max, strength) =>
            `${n}トークン。メーターの平均 ${mean}、最大 ${max}。強さ ${strength}。`,
        speed: '速さ',
        first: '最初の一言',
        count: '長さ',

        footMeter: (mean) => `メーター ${mean}`,
        footStrength: (range) => `強さ ${range}`,
        footSpeed: (rate) => `${rate} tok/s`,
        footForgotten: (n) => `長い会話なので、最初の${n}件は忘れています`,
        endCancelled: 'ここで止めました',
        endLength: '長さの上限で終わりました',
        endLost: '接続が切れて途切れました',
        endError: 'エラーで途切れました',
        endedEmpty: '（返事はありませんでした）',

        reset: '会話をリセット',
        resetTitle: '会話をリセットしますか？',
        resetText: 'これまでの会話は消えて、元には戻せません。',
        resetNo: 'やめる',
        resetYes: 'リセットする',

        errorPrefix: 'エラー: ',
        notConnected: 'まだつながっていません。つながってから送ってください。',
        notSaved: '会話が大きすぎて、このタブに保存できませんでした。',
    },
    en: {
        name: 'Rinne',
        otherLanguage: '日本語',
        skip: 'Skip to the message box',
        chat: 'Conversation',
        you: 'You',
        close: 'Close',
        toEnd: '↓ Newest',

        linkConnecting: 'Connecting…',
        linkReady: 'Connected',
        linkAnswering: 'Speaking…',
        linkLoading: 'Loading the model…',
        linkLoadingDetail: (percent) => percent === null ? '' : `${percent}%`,
        linkWaiting: 'Connection lost',
        linkWaitingDetail: (seconds) => `next try in ${seconds} s`,
        linkRetrying: 'Reconnecting…',
        unverified: '(not verified)',

        welcomeTitle: 'Say something to Rinne',
        welcomeText: 'She speaks Japanese. Turn up the gyaru strength, even in mid-answer.',
        starters: 'Ideas to start with',
        starterTexts: ['こんにちは！', '自己紹介して', '週末は何するの？', '好きな食べ物は？'],
        loadingTitle: 'Rinne is getting ready',
        loadingText: 'The model is loading. The page connects by itself when it is done.',
        offlineTitle: 'The server does not answer',
        offlineText: 'The page keeps trying by itself. Your conversation is safe.',

        input: 'Message to Rinne',
        placeholder: 'Talk to Rinne…',
        hint: 'Enter sends · Shift+Enter for a new line · Esc stops',
        send: 'Send',
        cancel: 'Stop (Esc)',
        thinking: 'Thinking',
        reading: (percent) => `Reading the conversation ${percent}%`,

        strength: 'Gyaru strength',
        strengthNumber: 'Strength as a number',
        presets: 'Strength presets',
        presetNames: ['Sober', 'Tipsy', 'Usual', 'Strong', 'Drunk', 'Overdose'],
        reverse: 'Anti-gyaru',

        meter: 'Gyaru meter',
        moods: { none: 'Waiting', calm: 'Normal', gyaru: 'Gyaru', over: 'Overdose' },
        layer: (n) => `Layer ${n}`,
        calibrated: 'Wording',
        calibratedHint: 'How the text itself reads: 0% like plain texts, 100% like texts in the '
            + 'style. What the strength adds is not in it (mean over 16 tokens).',

        chart: 'This answer',
        keyMeter: 'Meter',
        keyStrength: 'Strength',
        chartEmpty: 'Meter and strength are drawn here once an answer starts.',
        chartLabel: (n, mean, max, strength) =>
            `${n} tokens. Meter: mean ${mean}, maximum ${max}. Strength ${strength}.`,
        speed: 'Speed',
        first: 'First word',
        count: 'Length',

        footMeter: (mean) => `meter ${mean}`,
        footStrength: (range) => `strength ${range}`,
        footSpeed: (rate) => `${rate} tok/s`,
        footForgotten: (n) => `A long conversation: its first ${n} messages are forgotten`,
        endCancelled: 'Stopped here',
        endLength: 'Ended at the length limit',
        endLost: 'Cut off: the connection was lost',
        endError: 'Cut off by an error',
        endedEmpty: '(no answer came)',

        reset: 'Reset the conversation',
        resetTitle: 'Reset the conversation?',
        resetText: 'Everything said so far is deleted for good.',
        resetNo: 'Keep it',
        resetYes: 'Reset',

        errorPrefix: 'Error: ',
        notConnected: 'Not connected yet. Please send again once the page is connected.',
        notSaved: 'The conversation is too large to be kept in this tab.',
    },
};

const KEY = 'rinne.language';
const listeners = [];
let language = 'ja';

/* The first of the user's languages that we have; Japanese if there is none. */
function preferred()
{
    const stored = readStored();
    const wanted = stored ? [stored] : navigator.languages?.length ? navigator.languages
                                                                    : [navigator.language || 'ja'];
    for (const tag of wanted) {
        const base = tag.toLowerCase().split('-')[0];
        if (base in tables)
            return base;
    }
    return 'ja';
}

/* Storage may be forbidden by the browser; the page then simply forgets. */
function readStored()
{
    try {
        return localStorage.getItem(KEY);
    } catch {
        return null;
    }
}

/* {ja: {...}, en: {...}}: the same new keys in both. */
export function addTexts(texts)
{
    for (const [name, table] of Object.entries(texts))
        Object.assign(tables[name], table);
}

export function t(key, ...values)
{
    const entry = tables[language][key];
    return typeof entry === 'function' ? entry(...values) : entry;
}

/* Registers a function that redraws what it shows; called now and at every switch. */
export function onLanguage(redraw)
{
    listeners.push(redraw);
    redraw();
}

function apply()
{
    document.documentElement.lang = language;
    document.title = t('name');
    for (const node of document.querySelectorAll('[data-i18n]'))
        node.textContent = t(node.dataset.i18n);
    for (const node of document.querySelectorAll('[data-i18n-label]')) {
        node.setAttribute('aria-label', t(node.dataset.i18nLabel));
        if (node.tagName === 'BUTTON')
            node.title = t(node.dataset.i18nLabel);
    }
    for (const node of document.querySelectorAll('[data-i18n-placeholder]'))
        node.placeholder = t(node.dataset.i18nPlaceholder);
    for (const redraw of listeners)
        redraw();
}

/* For a page without a switch: the language that it was asked for, else the user's. */
export function useLanguage(wanted)
{
    language = wanted in tables ? wanted : preferred();
    apply();
}

export function initLanguage(button)
{
    language = preferred();
    button.addEventListener('click', () => {
        language = language === 'ja' ? 'en' : 'ja';
        try {
            localStorage.setItem(KEY, language);
        } catch {
            /* forgotten at the next visit */
        }
        apply();
    });
    onLanguage(() => {
        button.textContent = t('otherLanguage');
        button.lang = language === 'ja' ? 'en' : 'ja';
    });
    apply();
}
