/*
 * refusals.js - why the server refused something, in the page's language. The server names its
 * reasons (src/base/reason.h); what it says besides is English, and has the values.
 */
import {addTexts, t} from './strings.js';

addTexts({
    ja: {
        refusals: {
            message_invalid: 'サーバーに通じないメッセージでした。ページを読み直してください。',
            content_empty: 'メッセージが空です。',
            history_invalid: 'これまでの会話をサーバーが読めませんでした。',
            sampling_invalid: '生成の設定に範囲外の値があります。',
            answer_running: '返事の途中です。止めてから送ってください。',
            queue_full: '混み合っています。少し待ってから送ってください。',
            stopping: 'サーバーが終了するところです。',
            no_memory: 'サーバーのメモリが足りません。少し待ってから試してください。',
            context_full: 'メッセージが長すぎます。短くしてください。',
            steering_overflow: '強さが大きすぎて計算があふれました。強さを下げてください。',
            strength_invalid: '強さが範囲の外です。',
            steering_invalid: 'ベクトルの指定が正しくありません。',
            no_vector: 'ベクトルがありません。',
            vector_unknown: 'その名前のベクトルはありません。「読み直す」を試してください。',
            vector_unusable: 'そのベクトルはこのモデルでは使えません。',
            vector_named_twice: '同じベクトルが二度指定されています。',
            vectors_too_many: '混ぜるベクトルが多すぎます。',
            layers_invalid: '層は「A-B」か「A」の形で書いてください。',
            layers_outside: 'そのベクトルには、その層の方向がありません。',
            vectors_unread: 'ベクトルのフォルダを読めませんでした。理由はサーバーのログにあります。',
            vector_unreadable: 'ベクトルとして読めないファイルです。',
            vector_not_finite: '数でない値（NaN か無限大）が入っています。作り直してください。',
            vector_zero: '方向がゼロの層があります。作り直してください。',
            vector_too_long: 'モデルに足せないほど大きな値が入っています。',
            vector_hidden_size: 'モデルと隠れ層の大きさが違います。このモデルで作り直してください。',
            vector_depth: 'モデルと層の数が違います。このモデルで作り直してください。',
            vector_fingerprint: '同じ大きさの別のモデルで作られています。このモデルで作り直してください。',
            vector_unverified: 'どのモデルで作られたかがファイルにないので、照合できません。',
            vector_no_hook: '足す場所がファイルにないので、層の入力に足すものとして扱います。',
            vector_forced: 'このモデルのものではありませんが、指定どおり使っています。',
        },
    },
    en: {refusals: {}},
});

/* reason: a name; message: the server's own words, for what has none here. */
export function refusal(reason, message)
{
    return t('refusals')[reason] ?? String(message ?? '');
}
