"""The tools of the nano world: names, typed parameters, and how people ask for them."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from cascade.environments.synthetic import vocabulary as words

Draw = Callable[[Random], Any]


@dataclass(frozen=True)
class Parameter:
    """A JSON Schema and how a value for it is drawn."""

    schema: dict[str, Any]
    draw: Draw


@dataclass(frozen=True)
class Tool:
    """`requests` are phrases with the parameters in braces; they follow "please" or stand alone."""

    name: str
    description: str
    parameters: dict[str, Parameter]
    requests: tuple[str, ...]

    def schema(self) -> dict[str, Any]:
        """As NeMo Gym's rows list tools (OpenAI Responses form)."""
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": {
                "type": "object",
                "properties": {name: parameter.schema for name, parameter in self.parameters.items()},
                "required": list(self.parameters),
                "additionalProperties": False,
            },
        }


def _word(*choices: str) -> Parameter:
    return Parameter({"type": "string"}, lambda rng: rng.choice(choices))


def _one_of(*choices: str) -> Parameter:
    return Parameter({"type": "string", "enum": list(choices)}, lambda rng: rng.choice(choices))


def _integer(low: int, high: int) -> Parameter:
    return Parameter({"type": "integer"}, lambda rng: rng.randint(low, high))


CITY = _word(*words.CITIES)
NAME = _word(*words.NAMES)
DAY = _word(*words.DAYS)
FOOD = _word(*words.FRUITS, *words.VEGETABLES)
COLOR = _word(*words.COLORS)
HOUR = _integer(1, 12)
FEW = _integer(2, 12)
MINUTES = _integer(2, 60)
NUMBER = _integer(2, 99)
ROOM = _one_of("kitchen", "bedroom", "office", "hall")

TOOLS: tuple[Tool, ...] = (
    Tool("get_weather", "Weather in a city.", {"city": CITY}, (
        "tell me the weather in {city}", "check the weather of {city}", "find out if it rains in {city}",
        "look up the weather for {city}",
    )),
    Tool("get_time", "Current time in a city.", {"city": CITY}, (
        "tell me what time it is in {city}", "look up the time in {city}", "check the clock in {city}",
        "find the current time of {city}",
    )),
    Tool("find_hotel", "Hotels in a city.", {"city": CITY, "nights": FEW}, (
        "find a hotel in {city} for {nights} nights", "get me {nights} nights in a hotel in {city}",
        "look for a hotel in {city}, {nights} nights", "search a {city} hotel for {nights} nights",
    )),
    Tool("book_train", "Book train seats.", {"origin": CITY, "destination": CITY, "seats": FEW}, (
        "book {seats} train seats from {origin} to {destination}",
        "get {seats} seats on the train from {origin} to {destination}",
        "reserve {seats} train seats, {origin} to {destination}",
        "take the train from {origin} to {destination} with {seats} seats",
    )),
    Tool("book_flight", "Book a flight.", {"origin": CITY, "destination": CITY, "day": DAY}, (
        "book a flight from {origin} to {destination} on {day}", "fly me from {origin} to {destination} on {day}",
        "get a {day} flight from {origin} to {destination}", "reserve a plane seat, {origin} to {destination}, {day}",
    )),
    Tool("book_table", "Book a restaurant table.", {"city": CITY, "people": FEW}, (
        "book a table for {people} in {city}", "reserve a table in {city} for {people} people",
        "get {people} of us a table in {city}", "find a restaurant table in {city} for {people}",
    )),
    Tool("send_email", "Send an email.", {"to": NAME, "subject": FOOD}, (
        "email {to} about the {subject}", "send {to} an email on the {subject}",
        "write an email to {to} with subject {subject}", "mail {to} about the {subject}",
    )),
    Tool("call_person", "Call someone.", {"name": NAME}, (
        "call {name}", "phone {name}", "give {name} a call", "ring {name}",
    )),
    Tool("add_meeting", "Add a meeting.", {"person": NAME, "day": DAY, "hour": HOUR}, (
        "add a meeting with {person} on {day} at {hour}", "plan a meeting with {person}, {day} at {hour}",
        "meet {person} on {day} at {hour}, put it in my calendar", "set a {day} meeting with {person} at {hour}",
    )),
    Tool("cancel_meeting", "Cancel a meeting.", {"person": NAME, "day": DAY}, (
        "cancel my {day} meeting with {person}", "drop the meeting with {person} on {day}",
        "call off {person} on {day}", "remove my meeting with {person} on {day}",
    )),
    Tool("set_alarm", "Set an alarm.", {"hour": HOUR, "day": DAY}, (
        "set an alarm for {hour} on {day}", "wake me at {hour} on {day}", "make a {day} alarm at {hour}",
        "put an alarm on {day} at {hour}",
    )),
    Tool("set_timer", "Start a timer.", {"minutes": MINUTES}, (
        "start a timer of {minutes} minutes", "set a timer for {minutes} minutes", "time {minutes} minutes",
        "count down {minutes} minutes",
    )),
    Tool("add_reminder", "Add a reminder.", {"item": FOOD, "day": DAY}, (
        "remind me of the {item} on {day}", "add a {day} reminder for the {item}",
        "make a reminder on {day} about the {item}", "do not let me forget the {item} on {day}",
    )),
    Tool("buy_item", "Buy an item.", {"item": FOOD, "count": FEW}, (
        "buy {count} of the item {item}", "order {count} times {item}", "get me {count} x {item}",
        "purchase {item}, {count} pieces",
    )),
    Tool("get_price", "Price of an item.", {"item": FOOD}, (
        "tell me the price of {item}", "look up what a {item} costs", "check the price for {item}",
        "find out the cost of a {item}",
    )),
    Tool("add_to_list", "Add to the shopping list.", {"item": FOOD}, (
        "put {item} on my list", "add {item} to the shopping list", "write {item} on the list",
        "note {item} for shopping",
    )),
    Tool("remove_from_list", "Take off the shopping list.", {"item": FOOD}, (
        "take {item} off my list", "remove {item} from the shopping list", "delete {item} on the list",
        "strike {item} from my list",
    )),
    Tool("play_music", "Play an instrument's music.", {"instrument": _word(*words.INSTRUMENTS), "minutes": MINUTES}, (
        "play {instrument} music for {minutes} minutes", "let me hear {minutes} minutes of {instrument}",
        "put on {instrument} music, {minutes} minutes", "fill the room with {minutes} minutes of {instrument}",
    )),
    Tool("set_light", "Light color of a room.", {"room": ROOM, "color": COLOR}, (
        "make the {room} light {color}", "set the light in the {room} to {color}",
        "turn the {room} lamp {color}", "change the {room} to {color} light",
    )),
    Tool("set_heat", "Heat a room, in degrees.", {"room": ROOM, "degrees": _integer(15, 30)}, (
        "heat the {room} to {degrees} degrees", "set the {room} to {degrees} degrees",
        "make the {room} {degrees} degrees warm", "bring the {room} up to {degrees} degrees",
    )),
    Tool("open_door", "Open a door.", {"room": ROOM}, (
        "open the {room} door", "unlock the door of the {room}", "let me into the {room}", "open up the {room}",
    )),
    Tool("add_numbers", "a + b.", {"a": NUMBER, "b": NUMBER}, (
        "add {a} and {b}", "work out {a} plus {b}", "sum {a} and {b}", "compute {a} + {b}",
    )),
    Tool("multiply", "a * b.", {"a": NUMBER, "b": NUMBER}, (
        "multiply {a} by {b}", "work out {a} times {b}", "compute {a} * {b}", "take {a} times {b}",
    )),
    Tool("send_money", "Send money.", {"to": NAME, "amount": _integer(5, 500)}, (
        "send {amount} coins to {to}", "pay {to} {amount} coins", "give {to} {amount} coins",
        "transfer {amount} coins to {to}",
    )),
    Tool("paint_item", "Paint a thing.", {"item": _word(*words.FURNITURE), "color": COLOR}, (
        "paint the {item} {color}", "make the {item} {color}",
        "color my {item} {color}", "give the {item} a {color} coat",
    )),
    Tool("feed_animal", "Feed an animal.", {"animal": _word(*words.ANIMALS), "food": FOOD}, (
        "feed the {animal} some {food}", "give {food} to the {animal}", "let the {animal} eat {food}",
        "bring the {animal} a {food}",
    )),
)  # fmt: skip

RIVALS: dict[str, tuple[str, ...]] = {
    "book_train": ("book_flight",),
    "book_flight": ("book_train",),
    "add_to_list": ("remove_from_list", "buy_item"),
    "remove_from_list": ("add_to_list",),
    "add_meeting": ("cancel_meeting", "set_alarm"),
    "cancel_meeting": ("add_meeting",),
    "set_alarm": ("set_timer", "add_reminder"),
    "set_timer": ("set_alarm",),
    "get_weather": ("get_time",),
    "get_time": ("get_weather",),
    "set_light": ("set_heat",),
    "set_heat": ("set_light",),
    "add_numbers": ("multiply",),
    "multiply": ("add_numbers",),
    "buy_item": ("get_price", "add_to_list"),
    "get_price": ("buy_item",),
    "send_email": ("call_person", "send_money"),
    "call_person": ("send_email",),
}
"""Tools that are easily taken for each other: distractors at the harder levels."""
