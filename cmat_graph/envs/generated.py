"""Small database tasks made by this project: eight trades, their tables, plain questions and the trade's own idioms.

A machine without any benchmark data can run everything on these. *Plain* tasks name columns and values ("set the
status to 'paid'"). *Idiom* tasks speak as the trade does ("settle order 4127"): what they mean for the table can
only be learned from records of how they were solved, which is what distillation is for. `register` in the record
tells them apart. Train and test share idioms and never a table row or a task text.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from cmat_graph.envs.database import Record

Rng = random.Random
Values = Callable[[Rng], str]

FIRST = [
    "Ada",
    "Ben",
    "Cleo",
    "Dora",
    "Eli",
    "Finn",
    "Greta",
    "Hugo",
    "Ines",
    "Jonas",
    "Kira",
    "Liam",
    "Mona",
    "Nils",
    "Olga",
    "Paul",
    "Rosa",
    "Sven",
    "Tara",
    "Uma",
    "Viktor",
    "Wanda",
    "Yara",
    "Zeno",
    "Amir",
    "Bela",
    "Chloe",
    "Dario",
    "Emma",
    "Felix",
    "Gwen",
    "Henri",
    "Ivo",
    "Jana",
    "Kofi",
    "Lena",
    "Marco",
    "Nora",
    "Oscar",
    "Petra",
]
LAST = [
    "Adler",
    "Brandt",
    "Costa",
    "Dietz",
    "Evans",
    "Fischer",
    "Gruber",
    "Hansen",
    "Ivanov",
    "Jensen",
    "Keller",
    "Lopez",
    "Meyer",
    "Novak",
    "Olsen",
    "Pavlov",
    "Quist",
    "Rossi",
    "Silva",
    "Tanaka",
    "Ueda",
    "Varga",
    "Weber",
    "Young",
    "Zhang",
    "Baker",
    "Carter",
    "Duarte",
    "Eriksen",
    "Fontaine",
    "Garcia",
    "Huber",
]
CITIES = [
    "Oslo",
    "Lima",
    "Porto",
    "Vienna",
    "Cairo",
    "Quito",
    "Turin",
    "Graz",
    "Bergen",
    "Lyon",
    "Basel",
    "Riga",
    "Tartu",
    "Split",
    "Ghent",
    "Bilbao",
    "Malmo",
    "Aarhus",
    "Cork",
    "Leeds",
    "Boston",
    "Denver",
    "Austin",
    "Salem",
    "Tampa",
    "Osaka",
    "Kyoto",
    "Busan",
    "Perth",
    "Hobart",
]
ADJECTIVES = [
    "Silent",
    "Golden",
    "Broken",
    "Hidden",
    "Distant",
    "Crimson",
    "Frozen",
    "Gentle",
    "Hollow",
    "Ancient",
    "Bright",
    "Wild",
    "Bitter",
    "Quiet",
]
NOUNS = [
    "River",
    "Garden",
    "Mirror",
    "Harbor",
    "Forest",
    "Lantern",
    "Bridge",
    "Orchard",
    "Shadow",
    "Tower",
    "Valley",
    "Winter",
    "Island",
    "Compass",
]
GOODS = [
    "Lamp",
    "Kettle",
    "Chair",
    "Drill",
    "Rope",
    "Tent",
    "Mug",
    "Shelf",
    "Clock",
    "Radio",
    "Fan",
    "Ladder",
    "Scale",
    "Toaster",
    "Blanket",
    "Bucket",
]
TEAMS = ["Falcons", "Rovers", "United", "Tigers", "Wanderers", "Comets", "Rangers", "Pirates", "Harriers", "Bulls"]


def _person(rng: Rng) -> str:
    return f"{rng.choice(FIRST)} {rng.choice(LAST)}"


def _title(rng: Rng) -> str:
    return f"The {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"


def _good(rng: Rng) -> str:
    return f"{rng.choice(ADJECTIVES)} {rng.choice(GOODS)}"


def _team(rng: Rng) -> str:
    return f"{rng.choice(CITIES)} {rng.choice(TEAMS)}"


def _city(rng: Rng) -> str:
    return rng.choice(CITIES)


def _date(rng: Rng) -> str:
    return f"20{rng.randint(18, 29)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def _number(low: int, high: int) -> Values:
    return lambda rng: str(rng.randint(low, high))


def _code(prefix: str) -> Values:
    return lambda rng: f"{prefix}{rng.randint(1000, 9999)}"


def _one_of(*choices: str) -> Values:
    return lambda rng: rng.choice(choices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Idiom:
    """A trade's own way to ask for something."""

    says: tuple[str, ...]
    """Wordings; `{Column}` stands for the value of the chosen row."""
    kind: Literal["update", "read", "count"]
    where: dict[str, str | None]
    """Conditions: column to value, None for the value of the chosen row."""
    put: dict[str, str] | None = None
    """`update`: column to new value."""
    ask: str = ""
    """`read`: the column asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """One table of the built-in world."""

    table: str
    columns: dict[str, Values]
    key: str
    """The column that names a row in plain tasks."""
    numbers: tuple[str, ...]
    idioms: tuple[Idiom, ...]


TRADES = (
    Trade(
        table="Loans",
        columns={
            "Title": _title,
            "Member": _person,
            "Due": _date,
            "Status": _one_of("on loan", "returned", "overdue"),
            "Fine": _number(0, 60),
        },
        key="Member",
        numbers=("Fine",),
        idioms=(
            Idiom(
                says=("Check in {Title} from {Member}.", "{Member} brought back {Title}."),
                kind="update",
                put={"Status": "returned"},
                where={"Title": None, "Member": None},
            ),
            Idiom(
                says=("Waive what {Member} owes.", "Let {Member} off."),
                kind="update",
                put={"Fine": "0"},
                where={"Member": None},
            ),
            Idiom(
                says=("Who is sitting on {Title} too long?", "Who should be chased for {Title}?"),
                kind="read",
                ask="Member",
                where={"Title": None, "Status": "overdue"},
            ),
            Idiom(
                says=("How many books are out of the house?", "How many books are out?"),
                kind="count",
                where={"Status": "on loan"},
            ),
        ),
    ),
    Trade(
        table="Orders",
        columns={
            "Order": _code("A"),
            "Customer": _person,
            "Item": _good,
            "Amount": _number(5, 900),
            "State": _one_of("open", "paid", "shipped", "cancelled"),
        },
        key="Order",
        numbers=("Amount",),
        idioms=(
            Idiom(
                says=("Settle {Order}.", "The money for {Order} is in."),
                kind="update",
                put={"State": "paid"},
                where={"Order": None},
            ),
            Idiom(
                says=("Send {Order} on its way.", "{Order} left the dock."),
                kind="update",
                put={"State": "shipped"},
                where={"Order": None},
            ),
            Idiom(
                says=("Scrap {Order}.", "Pull {Order}."),
                kind="update",
                put={"State": "cancelled"},
                where={"Order": None},
            ),
            Idiom(
                says=("How much is on {Order}?", "What does {Order} come to?"),
                kind="read",
                ask="Amount",
                where={"Order": None},
            ),
            Idiom(
                says=("How many are we waiting on?", "How many still owe us?"), kind="count", where={"State": "open"}
            ),
        ),
    ),
    Trade(
        table="Rooms",
        columns={
            "Room": _number(100, 999),
            "Guest": _person,
            "Nights": _number(1, 14),
            "Board": _one_of("none", "breakfast", "half", "full"),
            "Condition": _one_of("clean", "dirty", "closed"),
        },
        key="Room",
        numbers=("Nights",),
        idioms=(
            Idiom(
                says=("Turn over {Room}.", "Housekeeping is done with {Room}."),
                kind="update",
                put={"Condition": "clean"},
                where={"Room": None},
            ),
            Idiom(
                says=("Take {Room} off the market.", "Block {Room}."),
                kind="update",
                put={"Condition": "closed"},
                where={"Room": None},
            ),
            Idiom(
                says=("Put {Guest} on all meals.", "{Guest} eats with us every day."),
                kind="update",
                put={"Board": "full"},
                where={"Guest": None},
            ),
            Idiom(says=("Who sleeps in {Room}?", "Who has {Room}?"), kind="read", ask="Guest", where={"Room": None}),
            Idiom(says=("How many are left for housekeeping?",), kind="count", where={"Condition": "dirty"}),
        ),
    ),
    Trade(
        table="Fleet",
        columns={
            "Plate": _code("KR"),
            "Driver": _person,
            "Depot": _city,
            "Mileage": _number(1000, 99000),
            "Service": _one_of("ready", "workshop", "retired"),
        },
        key="Plate",
        numbers=("Mileage",),
        idioms=(
            Idiom(
                says=("Ground {Plate}.", "{Plate} needs the garage."),
                kind="update",
                put={"Service": "workshop"},
                where={"Plate": None},
            ),
            Idiom(
                says=("{Plate} is back on the road.", "Release {Plate}."),
                kind="update",
                put={"Service": "ready"},
                where={"Plate": None},
            ),
            Idiom(
                says=("Write off {Plate}.", "{Plate} has had its day."),
                kind="update",
                put={"Service": "retired"},
                where={"Plate": None},
            ),
            Idiom(says=("Who is behind the wheel of {Plate}?",), kind="read", ask="Driver", where={"Plate": None}),
            Idiom(
                says=("Where does {Plate} live?", "Where is {Plate} parked?"),
                kind="read",
                ask="Depot",
                where={"Plate": None},
            ),
        ),
    ),
    Trade(
        table="Tickets",
        columns={
            "Ticket": _code("T"),
            "Reporter": _person,
            "Agent": _person,
            "Priority": _one_of("low", "normal", "urgent"),
            "Phase": _one_of("new", "active", "solved"),
        },
        key="Ticket",
        numbers=(),
        idioms=(
            Idiom(
                says=("Escalate {Ticket}.", "{Ticket} is on fire."),
                kind="update",
                put={"Priority": "urgent"},
                where={"Ticket": None},
            ),
            Idiom(
                says=("Put {Ticket} to bed.", "{Ticket} is dealt with."),
                kind="update",
                put={"Phase": "solved"},
                where={"Ticket": None},
            ),
            Idiom(
                says=("{Ticket} can wait.", "No hurry with {Ticket}."),
                kind="update",
                put={"Priority": "low"},
                where={"Ticket": None},
            ),
            Idiom(
                says=("Who is on {Ticket}?", "Whose desk is {Ticket} on?"),
                kind="read",
                ask="Agent",
                where={"Ticket": None},
            ),
            Idiom(says=("How many has nobody touched?",), kind="count", where={"Phase": "new"}),
        ),
    ),
    Trade(
        table="Staff",
        columns={
            "Name": _person,
            "Office": _city,
            "Role": _one_of("clerk", "engineer", "manager", "trainee"),
            "Salary": _number(2000, 9000),
            "Leave": _number(0, 30),
        },
        key="Name",
        numbers=("Salary", "Leave"),
        idioms=(
            Idiom(
                says=("{Name} made boss.", "Hand {Name} the team."),
                kind="update",
                put={"Role": "manager"},
                where={"Name": None},
            ),
            Idiom(says=("{Name} used up every free day.",), kind="update", put={"Leave": "0"}, where={"Name": None}),
            Idiom(
                says=("What does {Name} take home?", "What is {Name} on?"),
                kind="read",
                ask="Salary",
                where={"Name": None},
            ),
            Idiom(says=("Where does {Name} sit?",), kind="read", ask="Office", where={"Name": None}),
            Idiom(says=("How many are still learning the ropes?",), kind="count", where={"Role": "trainee"}),
        ),
    ),
    Trade(
        table="Stock",
        columns={
            "Article": _good,
            "Shelf": _code("S"),
            "Supplier": _city,
            "Price": _number(2, 400),
            "Pieces": _number(0, 500),
        },
        key="Article",
        numbers=("Price", "Pieces"),
        idioms=(
            Idiom(
                says=("{Article} is sold out.", "We ran dry of {Article}."),
                kind="update",
                put={"Pieces": "0"},
                where={"Article": None},
            ),
            Idiom(
                says=("Where do I find {Article}?", "Where is {Article} kept?"),
                kind="read",
                ask="Shelf",
                where={"Article": None},
            ),
            Idiom(says=("What do we charge for {Article}?",), kind="read", ask="Price", where={"Article": None}),
            Idiom(
                says=("Who makes {Article} for us?", "Where do we get {Article}?"),
                kind="read",
                ask="Supplier",
                where={"Article": None},
            ),
            Idiom(says=("How many are gone from the shelves?",), kind="count", where={"Pieces": "0"}),
        ),
    ),
    Trade(
        table="Matches",
        columns={
            "Home": _team,
            "Guests": _team,
            "Day": _date,
            "Crowd": _number(300, 60000),
            "Result": _one_of("pending", "home win", "draw", "away win", "abandoned"),
        },
        key="Home",
        numbers=("Crowd",),
        idioms=(
            Idiom(
                says=("{Home} took the points.", "{Home} came out on top."),
                kind="update",
                put={"Result": "home win"},
                where={"Home": None},
            ),
            Idiom(
                says=("{Home} and {Guests} shared the points.",),
                kind="update",
                put={"Result": "draw"},
                where={"Home": None, "Guests": None},
            ),
            Idiom(
                says=("Rain stopped {Home}.", "{Home} never finished."),
                kind="update",
                put={"Result": "abandoned"},
                where={"Home": None},
            ),
            Idiom(
                says=("Who came to {Home}?", "Who travelled to {Home}?"),
                kind="read",
                ask="Guests",
                where={"Home": None},
            ),
            Idiom(says=("How many are yet to be played?",), kind="count", where={"Result": "pending"}),
        ),
    ),
)


def generate_records(size: int, *, seed: int = 0, idiom_share: float = 0.6) -> list[Record]:
    """Make tasks, three quarters `train` and one quarter `test`.

    Args:
        size: How many.
        seed: Same seed, same tasks.
        idiom_share: Share of tasks that speak as the trade does.

    Returns:
        Records with a table of their own and gold that was run on SQLite.

    """
    rng = random.Random(f"cmat:{seed}")
    records: list[Record] = []
    seen: set[str] = set()
    while len(records) < size:
        trade = TRADES[len(records) % len(TRADES)]
        split = "test" if len(records) % 32 >= 24 else "train"  # every trade in both, in turn
        rows = make_rows(rng, trade, rng.randint(6, 12))
        drawn = (
            idiom_task(rng, trade, rows)
            if rng.random() < idiom_share
            else plain_task(rng, trade.table, rows, trade.numbers)
        )
        if drawn is None or drawn["description"] in seen:
            continue
        seen.add(drawn["description"])
        digest = hashlib.sha256(f"{seed}:{drawn['description']}".encode()).hexdigest()[:12]
        records.append(Record(id=f"gen-{digest}", split=split, **drawn))
    return records


def make_rows(rng: Rng, trade: Trade, count: int) -> list[dict[str, str]]:
    """Draw a table's rows; the key column has no value twice."""
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < count:
        row = {name: draw(rng) for name, draw in trade.columns.items()}
        rows[row[trade.key]] = row
    return list(rows.values())


def idiom_task(rng: Rng, trade: Trade, rows: list[dict[str, str]]) -> dict[str, Any] | None:
    """Word one idiom of a trade for one row."""
    idiom = rng.choice(trade.idioms)
    row, other = rng.sample(rows, 2)
    for column, value in idiom.where.items():
        if value is not None:
            row[column] = value  # so that the question has an answer
    for column, value in (idiom.put or {}).items():
        other[column] = value  # a table in use knows the words of its trade
    where = {column: row[column] if value is None else value for column, value in idiom.where.items()}
    words = rng.choice(idiom.says).format(**row)
    if idiom.kind == "count":
        words = f"{words} ({rng.choice(CITIES)} branch, {_date(rng)})"  # a different text for each table
    if idiom.kind == "update":
        return update_task(trade.table, rows, words, idiom.put or {}, where)
    return read_task(trade.table, rows, words, idiom.ask, where)


def plain_task(rng: Rng, table: str, rows: list[dict[str, str]], numbers: tuple[str, ...]) -> dict[str, Any] | None:
    """Word one task that names its columns and values."""
    columns = list(rows[0])
    row = rng.choice(rows)
    key, other = rng.sample(columns, 2)
    kind = rng.choice(("insert", "update", "update", "read", "read", "count", "most"))
    if kind == "insert":
        fresh = rng.choice(rows)
        values = {column: rng.choice(rows)[column] if column in numbers else fresh[column] for column in columns}
        listed = ", ".join(f"{column} '{value}'" for column, value in values.items())
        return insert_task(table, rows, f"Insert a row into {table} with {listed}.", values)
    if kind == "update":
        new = rng.choice([other_row[other] for other_row in rows])
        words = rng.choice(
            (
                f"Set the {other} to '{new}' where the {key} is '{row[key]}'.",
                f"Change the {other} of the row with {key} '{row[key]}' to '{new}'.",
                f"In {table}, update the {other} of {row[key]} to {new}.",
            )
        )
        return update_task(table, rows, words, {other: new}, {key: row[key]})
    if kind == "read":
        words = rng.choice(
            (
                f"What is the {other} where the {key} is '{row[key]}'?",
                f"Tell me the {other} of {row[key]}.",
                f"Which {other} has the {key} {row[key]}?",
            )
        )
        return read_task(table, rows, words, other, {key: row[key]})
    if kind == "count":
        words = rng.choice(
            (f"How many rows have the {key} '{row[key]}'?", f"Count the rows where the {key} is {row[key]}.")
        )
        return read_task(table, rows, words, "", {key: row[key]})
    if not numbers:
        return None
    number, top = rng.choice(numbers), rng.random() < 0.5
    asked = rng.choice([column for column in columns if column != number])
    words = f"Which {asked} has the {'highest' if top else 'lowest'} {number}?"
    return most_task(table, rows, words, asked, number, top)


# -- one function for each kind of gold --------------------------------------------------------------------------


def insert_task(table: str, rows: list[dict[str, str]], words: str, values: dict[str, str]) -> dict[str, Any]:
    """A task to add one row."""
    names = ", ".join(f"`{column}`" for column in values)
    sql = f"INSERT INTO `{table}` ({names}) VALUES ({', '.join(map(quote, values.values()))})"
    return _record(table, rows, words, "INSERT", "This adds a row.", label=[sql])


def update_task(
    table: str, rows: list[dict[str, str]], words: str, put: dict[str, str], where: dict[str, str]
) -> dict[str, Any] | None:
    """A task to change rows; None when they are so already: doing nothing must not solve a task."""
    meant = [row for row in rows if all(row[column].lower() == value.lower() for column, value in where.items())]
    if all(row[column] == value for row in meant for column, value in put.items()):
        return None
    sets = ", ".join(f"`{column}` = {quote(value)}" for column, value in put.items())
    sql = f"UPDATE `{table}` SET {sets} WHERE {_conditions(where)}"
    thought = f"This changes {_names(put)} where {_names(where)} fits."
    return _record(table, rows, words, "UPDATE", thought, label=[sql])


def read_task(
    table: str, rows: list[dict[str, str]], words: str, ask: str, where: dict[str, str]
) -> dict[str, Any] | None:
    """A task to read a column, or to count rows where `ask` is empty; None when the answer would be long."""
    sql = f"SELECT {f'`{ask}`' if ask else 'COUNT(*)'} FROM `{table}` WHERE {_conditions(where)}"
    thought = (
        f"This asks for `{ask}` where {_names(where)} fits." if ask else f"This counts where {_names(where)} fits."
    )
    return _answered(table, rows, words, "other" if ask else "counting", thought, sql)


def most_task(
    table: str, rows: list[dict[str, str]], words: str, ask: str, number: str, top: bool
) -> dict[str, Any] | None:
    """A task for the row with the highest or lowest number; None on a tie."""
    values = [row[number] for row in rows]
    best = (max if top else min)(values, key=float)
    if values.count(best) > 1:
        return None
    order = "DESC" if top else "ASC"
    sql = f"SELECT `{ask}` FROM `{table}` ORDER BY CAST(`{number}` AS DECIMAL) {order} LIMIT 1"
    thought = f"This asks for `{ask}` at the {'highest' if top else 'lowest'} `{number}`."
    return _answered(table, rows, words, "ranking", thought, sql)


def quote(value: str) -> str:
    """Write a SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def _conditions(where: dict[str, str]) -> str:
    return " AND ".join(f"`{column}` = {quote(value)}" for column, value in where.items())


def _names(columns: dict[str, str]) -> str:
    return ", ".join(f"`{column}`" for column in columns)


def _answered(
    table: str, rows: list[dict[str, str]], words: str, kind: str, thought: str, sql: str
) -> dict[str, Any] | None:
    label = [str(row[0]) for row in _run(table, rows, sql)]
    if not 1 <= len(label) <= 4 or len(set(label)) < len(label):
        return None
    return _record(table, rows, words, kind, thought, label=label, sql=sql)


def _record(table: str, rows: list[dict[str, str]], words: str, kind: str, thought: str, **gold: Any) -> dict[str, Any]:
    return {
        "description": words,
        "add_description": f"The name of this table is {table}, and the headers of this table are {','.join(rows[0])}.",
        "type": kind,
        "thought": thought,
        "table": {
            "table_name": table,
            "table_info": {
                "columns": [{"name": column, "type": "TEXT"} for column in rows[0]],
                "rows": [list(row.values()) for row in rows],
            },
        },
        **gold,
    }


def _run(table: str, rows: list[dict[str, str]], sql: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(":memory:") as connection:
        columns = ", ".join(f"`{column}` TEXT COLLATE NOCASE" for column in rows[0])
        connection.execute(f"CREATE TABLE `{table}` ({columns})")
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(f"INSERT INTO `{table}` VALUES ({marks})", [tuple(row.values()) for row in rows])
        return connection.execute(sql).fetchall()
