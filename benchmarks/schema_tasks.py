"""Ten tasks whose answers are JSON in a schema, of the shapes that people ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TEXT: dict[str, Any] = {"type": "string"}
WHOLE: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 100000}
YES: dict[str, Any] = {"type": "boolean"}
DATE: dict[str, Any] = {"type": "string", "format": "date"}


@dataclass(frozen=True)
class Task:
    request: str
    schema: dict[str, Any]


def fields(**properties: Any) -> dict[str, Any]:
    """An object with exactly these fields."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def one_of(*values: str) -> dict[str, Any]:
    return {"enum": list(values)}


def items(of: dict[str, Any], least: int, most: int) -> dict[str, Any]:
    return {"type": "array", "items": of, "minItems": least, "maxItems": most}


TASKS = {
    "extraction": Task(
        "Extract the person.\n\nAlice Miller, 34, works as a nurse in Dublin. Write to her at "
        "alice.miller@example.org or call 555-0134.",
        fields(name=TEXT, age=WHOLE, occupation=TEXT, city=TEXT, email=TEXT, phone=TEXT),
    ),
    "classification": Task(
        "Classify this message.\n\nYour app deleted all my photos and nobody answers my mails. I "
        "want my money back today.",
        fields(
            sentiment=one_of("positive", "neutral", "negative"),
            category=one_of("billing", "bug report", "feature request", "praise", "other"),
            urgency=one_of("low", "medium", "high"),
            needs_human=YES,
            refund_requested=YES,
            language=one_of("English", "German", "French", "Spanish"),
        ),
    ),
    "nested list": Task(
        "Write the order as JSON.\n\nOrder 4711 for Bob Stone: 3 notebooks at 4 dollars, 1 desk "
        "lamp at 29 dollars, 12 pencils at 1 dollar.",
        fields(
            order_number=WHOLE,
            customer=fields(name=TEXT),
            line_items=items(fields(product=TEXT, quantity=WHOLE, unit_price=WHOLE), 3, 3),
        ),
    ),
    "enums": Task(
        "Sort these animals.\n\nlion, sparrow, salmon, frog, cobra",
        fields(
            animals=items(
                fields(
                    animal=one_of("lion", "sparrow", "salmon", "frog", "cobra"),
                    animal_class=one_of("mammal", "bird", "fish", "amphibian", "reptile"),
                    habitat=one_of("land", "water", "air"),
                    is_dangerous=YES,
                ),
                5,
                5,
            )
        ),
    ),
    "dates": Task(
        "Extract the events.\n\nThe fair opens on 2026-03-14 and closes on 2026-03-18. The concert "
        "is on 2026-04-02.",
        fields(
            events=items(fields(title=TEXT, start_date=DATE, end_date=DATE, all_day=YES), 2, 2),
            time_zone=one_of("UTC", "Europe/Berlin", "America/New_York"),
        ),
    ),
    "tool call": Task(
        "Call the right tool.\n\nWhat will the weather be in Paris on 2026-05-09, in Celsius?",
        fields(
            tool_calls=items(
                fields(
                    type={"const": "function"},
                    function=fields(
                        name=one_of("get_weather_forecast", "get_current_time", "search_the_web"),
                        arguments=fields(
                            location=TEXT, date=DATE, unit=one_of("celsius", "fahrenheit")
                        ),
                    ),
                ),
                1,
                1,
            )
        ),
    ),
    "checklist": Task(
        "Check this password policy.\n\nPasswords have 12 characters or more, with a digit and a "
        "symbol. They expire after 90 days.",
        fields(
            minimum_length=WHOLE,
            requires_digit=YES,
            requires_symbol=YES,
            requires_uppercase=YES,
            allows_reuse=YES,
            expires=YES,
            expires_after_days=WHOLE,
        ),
    ),
    "deep nesting": Task(
        "Write the company's address book entry.\n\nAcme Ltd, 12 Harbour Street, 8010 Graz, "
        "Austria. Contact: Eva Huber, sales.",
        fields(
            company=fields(
                legal_name=TEXT,
                headquarters=fields(street_address=TEXT, postal_code=TEXT, city=TEXT, country=TEXT),
                primary_contact=fields(full_name=TEXT, department=TEXT),
            )
        ),
    ),
    "relations": Task(
        "List who works where.\n\nMaria works for Siemens. Tom works for Bosch. Siemens is in "
        "Munich. Bosch is in Stuttgart.",
        fields(
            relations=items(
                fields(subject=TEXT, predicate=one_of("works_for", "located_in"), object=TEXT),
                4,
                4,
            )
        ),
    ),
    "settings": Task(
        "Write the settings.\n\nServer on port 8080 with 4 workers, debug off, log level warning, "
        "timeout 30 seconds, cache of 256 megabytes.",
        fields(
            server=fields(port=WHOLE, worker_count=WHOLE, timeout_seconds=WHOLE),
            logging=fields(level=one_of("debug", "info", "warning", "error"), debug_mode=YES),
            cache=fields(enabled=YES, size_megabytes=WHOLE),
        ),
    ),
}
