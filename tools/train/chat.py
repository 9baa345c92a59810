"""ChatML as the models' chat_template renders it, split so that a loss mask can follow it.

The template text is the one of the reference checkpoints; only the default system prompt is ours.
"""

TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nDEFAULT<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def pieces(system, turns):
    """[(text, trained)]: what a chat of (user, assistant) turns renders to, in order.

    An assistant of None leaves the chat open for an answer (add_generation_prompt).
    """
    out = [(f"<|im_start|>system\n{system}<|im_end|>\n", False)]
    for user, answer in turns:
        out.append((f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n", False))
        if answer is not None:
            out += [(f"{answer}<|im_end|>", True), ("\n", False)]
    return out


def render(system, turns):
    return "".join(text for text, _ in pieces(system, turns))
