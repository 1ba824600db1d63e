"""Script, style and markup of a web page that a crawler took for a text: not words that a person wrote for readers."""

import re

# Read by Python and by Rust alike. Amazon's authors of 2018 drop titles that hold getTime.
PATTERN = (
    r"(?s)(?i:</?\s*(script|style)\b|<!doctype\b)|\bgetTime\b|\bfunction\s*\w*\s*\([^()]*\)\s*\{|\bvar\s+\w+\s*=[^=]"
    r"|\bdocument\.(getElementById|querySelector|createElement|write)\b|\bwindow\.\w+\s*=|[.#][\w-]+[^{}]*\{\s*[\w-]+\s*:[^{}]*[;}]"
)
is_page_source = re.compile(PATTERN).search
