/* report_doc.c - see report_doc.h. */
#include "steer/report_doc.h"

#include "steer/report_page.h"

#include <string.h>

/* Text as Markdown: what would begin markup is escaped, line ends become spaces. */
static void put_markdown(struct str *out, const char *text)
{
    for (; *text; text++) {
        if (strchr("\\`*[]<|", *text))
            str_putc(out, '\\');
        str_putc(out, *text == '\n' || *text == '\r' ? ' ' : *text);
    }
}

static void put_text(struct doc *doc, const char *text)
{
    if (doc->html)
        html_text(&doc->out, text);
    else
        put_markdown(&doc->out, text);
}

/* A block begins: in Markdown after an empty line, in HTML after the end of a list. */
static void begin_block(struct doc *doc)
{
    if (doc->html && doc->in_list)
        str_puts(&doc->out, "</ul>\n");
    else if (!doc->html)
        str_putc(&doc->out, '\n');
    doc->in_list = false;
}

static void begin_item(struct doc *doc)
{
    if (!doc->in_list && doc->html)
        str_puts(&doc->out, "<ul>\n");
    else if (!doc->in_list)
        str_putc(&doc->out, '\n');
    doc->in_list = true;
}

void doc_begin(struct doc *doc, const char *title, const char *subtitle)
{
    if (doc->html) {
        page_begin(&doc->out, doc->japanese ? "ja" : "en", title, subtitle);
        return;
    }
    str_puts(&doc->out, "# ");
    put_text(doc, title);
    str_puts(&doc->out, "\n\n");
    put_text(doc, subtitle);
    str_putc(&doc->out, '\n');
}

void doc_end(struct doc *doc)
{
    if (doc->html) {
        begin_block(doc);
        page_end(&doc->out);
    }
}

void doc_heading(struct doc *doc, int level, const char *text)
{
    begin_block(doc);
    if (doc->html)
        str_printf(&doc->out, "<h%d>", level);
    else
        str_puts(&doc->out, level == 2 ? "## " : "### ");
    put_text(doc, text);
    if (doc->html)
        str_printf(&doc->out, "</h%d>", level);
    str_putc(&doc->out, '\n');
}

/* A line of text, `tag` in HTML, behind `mark` in Markdown. */
static void put_line(struct doc *doc, const char *tag, const char *mark, const char *format,
                     va_list args)
{
    struct str text = STR_INIT;
    str_vprintf(&text, format, args);
    if (doc->html)
        str_printf(&doc->out, "<%s>", tag);
    else
        str_puts(&doc->out, mark);
    if (str_failed(&text))
        doc->out.failed = true;
    else
        put_text(doc, text.data ? text.data : "");
    if (doc->html)
        str_printf(&doc->out, "</%s>", tag);
    str_putc(&doc->out, '\n');
    str_release(&text);
}

void doc_paragraph(struct doc *doc, const char *format, ...)
{
    va_list args;
    begin_block(doc);
    va_start(args, format);
    put_line(doc, "p", "", format, args);
    va_end(args);
}

void doc_item(struct doc *doc, const char *format, ...)
{
    va_list args;
    begin_item(doc);
    va_start(args, format);
    put_line(doc, "li", "- ", format, args);
    va_end(args);
}

void doc_check(struct doc *doc, bool ticked, const char *what, const char *evidence)
{
    begin_item(doc);
    if (doc->html)
        str_printf(&doc->out, "<li class=\"check\"><b>%s ", ticked ? "\u2611" : "\u2610");
    else
        str_printf(&doc->out, "- [%c] **", ticked ? 'x' : ' ');
    put_text(doc, what);
    str_puts(&doc->out, doc->html ? "</b>: " : "**: ");
    put_text(doc, evidence);
    str_puts(&doc->out, doc->html ? "</li>\n" : "\n");
}

void doc_code(struct doc *doc, const char *text)
{
    begin_block(doc);
    if (doc->html) {
        str_puts(&doc->out, "<pre>");
        html_text(&doc->out, text);
        str_puts(&doc->out, "</pre>\n");
        return;
    }
    str_printf(&doc->out, "```\n%s%s```\n", text,
               *text && text[strlen(text) - 1] == '\n' ? "" : "\n");
}

static void put_cells(struct doc *doc, const char *const *cells, const char *element)
{
    str_puts(&doc->out, doc->html ? "<tr>" : "|");
    for (int i = 0; i < doc->columns && cells[i]; i++) {
        if (doc->html)
            str_printf(&doc->out, "<%s>", element);
        else
            str_putc(&doc->out, ' ');
        put_text(doc, cells[i]);
        if (doc->html)
            str_printf(&doc->out, "</%s>", element);
        else
            str_puts(&doc->out, " |");
    }
    str_puts(&doc->out, doc->html ? "</tr>\n" : "\n");
}

void doc_table(struct doc *doc, const char *const *header)
{
    begin_block(doc);
    for (doc->columns = 0; header[doc->columns];)
        doc->columns++;
    str_puts(&doc->out, doc->html ? "<div class=\"scroll\"><table class=\"doc\">\n" : "");
    put_cells(doc, header, "th");
    if (!doc->html) {
        str_putc(&doc->out, '|');
        for (int i = 0; i < doc->columns; i++)
            str_puts(&doc->out, i ? "---:|" : "---|");
        str_putc(&doc->out, '\n');
    }
}

void doc_row(struct doc *doc, const char *const *cells)
{
    put_cells(doc, cells, "td");
}

void doc_table_end(struct doc *doc)
{
    str_puts(&doc->out, doc->html ? "</table></div>\n" : "");
}

void doc_plots(struct doc *doc)
{
    if (!doc->html)
        return;
    begin_block(doc);
    str_puts(&doc->out, "<div class=\"plots\">\n");
}

void doc_plot(struct doc *doc, const struct plot *plot)
{
    if (doc->html)
        plot_write(&doc->out, plot);
}

void doc_bars(struct doc *doc, const struct bars *bars)
{
    if (doc->html)
        bars_write(&doc->out, bars);
}

void doc_plots_end(struct doc *doc)
{
    str_puts(&doc->out, doc->html ? "</div>\n" : "");
}
