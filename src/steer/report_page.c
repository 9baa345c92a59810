/* report_page.c - see report_page.h. Nothing in a page is fetched from anywhere. */
#include "steer/report_page.h"

#include <string.h>

static const char style[] =
    ":root{--bg:#fbf9fb;--card:#fff;--ink:#241b2a;--soft:#6d6275;--line:#e6dfea;--band:#fdeaf4;"
    "--good:#0f7b53;--goodbg:#e3f6ee;--bad:#b3261e;--badbg:#fdeceb;--warn:#8a5a00;"
    "--warnbg:#fff4dc;--s0:#d6267f;--s1:#2f6fde;--s2:#7a7f87;--s3:#0f8f6f;--s4:#c26a00;"
    "--s5:#7b4fd0;color-scheme:light dark}"
    "@media(prefers-color-scheme:dark){:root{--bg:#17131b;--card:#211b27;--ink:#f2ecf5;"
    "--soft:#ada2b5;--line:#3a3142;--band:#3d2236;--good:#6fdcb0;--goodbg:#16362b;--bad:#ff9d95;"
    "--badbg:#43201e;--warn:#f3c66b;--warnbg:#3b2f16;--s0:#ff6fb5;--s1:#7fb0ff;--s2:#a2a7b0;"
    "--s3:#4fd1ae;--s4:#ffb066;--s5:#b596ff}}"
    "*{box-sizing:border-box}"
    "body{margin:0;background:var(--bg);color:var(--ink);line-height:1.65;"
    "font-family:system-ui,-apple-system,'Hiragino Sans','Noto Sans JP','Noto Sans CJK JP',"
    "'Yu Gothic UI',sans-serif}"
    "main{max-width:1180px;margin:0 auto;padding:2rem 1.25rem 4rem}"
    "h1{font-size:1.7rem;line-height:1.3;margin:0}h1+p{color:var(--soft);margin:.2rem 0 1.4rem}"
    "h2{font-size:1.15rem;margin:2.4rem 0 .8rem}"
    ".verdict{border-radius:12px;padding:1rem 1.2rem;margin:1rem 0;font-weight:600;"
    "overflow-wrap:anywhere}"
    ".verdict small{display:block;font-weight:400}"
    ".good{background:var(--goodbg);color:var(--good)}.bad{background:var(--badbg);"
    "color:var(--bad)}"
    ".warn{background:var(--warnbg);color:var(--warn);border-radius:12px;padding:.7rem 1.2rem;"
    "margin:1rem 0}.warn ul{margin:0;padding-left:1.2rem}"
    ".facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(210px,1fr));"
    "background:var(--card);border:1px solid var(--line);border-radius:12px;overflow:hidden;"
    "margin:1rem 0;padding:.3rem 0}"
    ".facts div{padding:.45rem 1rem}"
    ".facts dt{color:var(--soft);font-size:.78rem}.facts dd{margin:0;overflow-wrap:anywhere}"
    ".plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));"
    "gap:1rem}.plots+.scroll,.scroll+.plots{margin-top:1rem}"
    "figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:12px;"
    "padding:1rem 1rem .6rem;break-inside:avoid}"
    "figcaption{font-weight:600}figcaption::first-letter{text-transform:uppercase}figcaption "
    "small{display:block;font-weight:400;"
    "color:var(--soft);min-height:1.5em}"
    "svg{display:block;width:100%;height:auto;font-size:12px}"
    "svg text{fill:var(--soft)}.grid{stroke:var(--line)}.limit{stroke:var(--bad);"
    "stroke-dasharray:3 3}svg .limittext{fill:var(--bad)}.band{fill:var(--band)}"
    ".best{stroke:var(--s0);stroke-opacity:.55}svg .besttext{fill:var(--s0)}"
    ".key{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.8rem;color:var(--soft);"
    "list-style:none;margin:.3rem 0 0;padding:0}"
    ".key svg{display:inline;width:26px;height:10px;vertical-align:middle;margin-right:.35rem}"
    ".scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);"
    "border-radius:12px}"
    "table{border-collapse:collapse;width:100%;font-size:.86rem;"
    "font-variant-numeric:tabular-nums}"
    "th,td{padding:.38rem .55rem;text-align:right;white-space:nowrap;"
    "border-bottom:1px solid var(--line)}"
    "th{color:var(--soft);font-weight:600;vertical-align:bottom;white-space:normal;"
    "min-width:4.9em;line-height:1.35}th:first-child{min-width:3em}"
    "tr:last-child td{border-bottom:0}td:nth-child(2){text-align:left}"
    "table.doc td:nth-child(2){text-align:right}table.doc th:first-child,"
    "table.doc td:first-child{text-align:left}"
    "tr.used td{background:var(--band)}tr.best td:first-child{font-weight:700;color:var(--s0)}"
    ".help dt{font-weight:600;margin-top:.7rem}.help dd{margin:0;color:var(--soft)}"
    "code{font-family:ui-monospace,monospace;font-size:.92em}"
    "@media print{body{background:#fff}main{max-width:none;padding:0}}";

void html_text(struct str *out, const char *text)
{
    for (; *text; text++) {
        const char *entity = *text == '&'    ? "&amp;"
                             : *text == '<'  ? "&lt;"
                             : *text == '>'  ? "&gt;"
                             : *text == '"'  ? "&quot;"
                             : *text == '\'' ? "&#39;"
                                             : NULL;
        if (entity)
            str_puts(out, entity);
        else
            str_putc(out, *text);
    }
}

void page_begin(struct str *out, const char *language, const char *title, const char *subtitle)
{
    str_printf(out,
               "<!doctype html>\n<html lang=\"%s\">\n<head>\n<meta charset=\"utf-8\">\n"
               "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>",
               !strcmp(language, "ja") ? "ja" : "en");
    html_text(out, title);
    str_printf(out, "</title>\n<style>%s</style>\n</head>\n<body>\n<main>\n<h1>", style);
    html_text(out, title);
    str_puts(out, "</h1>\n<p>");
    html_text(out, subtitle);
    str_puts(out, "</p>\n");
}

void page_end(struct str *out)
{
    str_puts(out, "</main>\n</body>\n</html>\n");
}

const char *page_say(const struct page *page, const char *english, const char *japanese)
{
    return page->japanese ? japanese : english;
}

void page_heading(struct page *page, const char *english, const char *japanese)
{
    str_puts(&page->out, "<h2>");
    html_text(&page->out, page_say(page, english, japanese));
    str_puts(&page->out, "</h2>\n");
}

void page_fact(struct page *page, const char *name, const char *format, ...)
{
    struct str value = STR_INIT;
    va_list args;
    va_start(args, format);
    str_vprintf(&value, format, args);
    va_end(args);
    str_puts(&page->out, "<div><dt>");
    html_text(&page->out, name);
    str_puts(&page->out, "</dt><dd>");
    html_text(&page->out, value.data ? value.data : "");
    str_puts(&page->out, "</dd></div>\n");
    str_release(&value);
}
