"""SQL attacks: what reads or writes files, ends the transaction, waits, locks or hides is refused before it is sent."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from contextlib import closing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmat_graph.envs import load_env
from cmat_graph.envs.database.dbbench import operation
from cmat_graph.envs.database.places import StatementError
from cmat_graph.envs.database.sqlite import SQLitePlace
from cmat_graph.envs.database.statements import first_word, refuse, tokens
from cmat_graph.errors import ConfigurationError

EVERYWHERE = [
    "COMMIT",
    "ROLLBACK",
    "BEGIN",
    "SAVEPOINT s",
    "RELEASE attempt",
    "ROLLBACK TO attempt",
    "SELECT 1; DROP TABLE goods",
    "SELECT ';' ; COMMIT",
    "SELECT 1;;SELECT 2",
    "/* a */ ; /* b */ COMMIT",
    "((COMMIT))",
    "ATTACH 'x.db' AS x",
    "DETACH x",
    "VACUUM INTO 'x.db'",
    "PRAGMA writable_schema = 1",
    "CREATE TABLE x (a TEXT)",
    "ALTER TABLE goods ADD b TEXT",
    "DROP TABLE goods",
    "TRUNCATE goods",
    "SET x = 1",
    "CALL p()",
    "DO 1",
    "LOCK TABLES goods WRITE",
    "GRANT ALL ON goods TO x",
    "COPY goods TO PROGRAM 'sh'",
    "LOAD DATA INFILE '/etc/passwd' INTO TABLE goods",
    "HANDLER goods OPEN",
    "PREPARE p FROM 'COMMIT'",
    "EXECUTE IMMEDIATE 'COMMIT'",
    "DELIMITER //",
    "USE mysql",
]
BY_DIALECT = {
    "sqlite": ["SELECT load_extension('x')", "SELECT readfile('/etc/passwd')", "SELECT writefile ('x', 'y')"],
    "mysql": [
        "SELECT LOAD_FILE('/etc/passwd')",
        "SELECT `load_file`('/etc/passwd')",
        "SELECT load_file/**/('/etc/passwd')",
        "SELECT SLEEP(9)",
        "SELECT BENCHMARK(1e9, MD5('a'))",
        "SELECT GET_LOCK('a', 9)",
        "SELECT 1 INTO OUTFILE '/tmp/x'",
        "SELECT 1 /*x*/ INTO /*y*/ DUMPFILE '/tmp/x'",
        "SELECT * FROM goods FOR UPDATE",
        "SELECT * FROM goods LOCK IN SHARE MODE",
        "/*! COMMIT */",
        "/*!50000 SELECT */ 1",
        "SELECT 1 /*M! ; COMMIT */",
        "SELECT /*+ SET_VAR(max_execution_time = 0) */ 1",
        "SELECT 1 # comment\n; COMMIT",
        "SELECT 'a\\'' ; COMMIT -- '",
        'SELECT "a\\"" ; COMMIT -- "',
        "SELECT 1 --1\n; COMMIT",
        "SELECT * FROM mysql.user",
        "INSERT INTO `mysql`.`user` VALUES (1)",
        "SELECT NEXTVAL(s)",
        "SELECT NEXT VALUE FOR s",
        "SET STATEMENT max_statement_time = 0 FOR SELECT 1",
    ],
    "postgresql": [
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT \"pg_read_file\"('/etc/passwd')",
        "SELECT pg_catalog . pg_read_binary_file /**/ ('/etc/passwd')",
        "SELECT U&\"pg\\005fread_file\"('/etc/passwd')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT pg_sleep(9)",
        "SELECT pg_terminate_backend(1)",
        "SELECT pg_advisory_lock(1)",
        "SELECT dblink_exec('dbname=x', 'DROP TABLE goods')",
        "SELECT query_to_xml('DROP TABLE goods', true, true, '')",
        "SELECT set_config('statement_timeout', '0', true)",
        "SELECT setval('s', 1)",
        "SELECT * FROM pg_shadow",
        "SELECT * FROM goods FOR NO KEY UPDATE",
        "SELECT $$;$$ ; COMMIT",
        "SELECT $a$ $$ ; $a$; COMMIT",
        "SELECT 1 AS €$$ ; COMMIT; --$$",
        "SELECT E'a\\'' ; COMMIT --'",
        "SELECT E'a'\n'x\\'' ; COMMIT; --'",
        "SELECT /* /* */ */ 1; COMMIT",
        "SELECT 1 -- a\r; COMMIT",
        "LISTEN a",
    ],
}
ALLOWED = [
    "SELECT ';', '--', '/*', '#' FROM goods;",
    "select 'it''s' -- why; not\n",
    "WITH a AS (SELECT 1) SELECT * FROM a",
    "(SELECT 1) UNION (SELECT 2)",
    "EXPLAIN SELECT 1",
    "INSERT INTO goods VALUES ('a; b', 'COMMIT')",
    "UPDATE goods SET name = 'SLEEP (9)' WHERE name = 'load_file'",
    "SELECT name AS sleep, price AS benchmark FROM goods",
    "REPLACE INTO goods VALUES ('a', 'b')",
]


@pytest.mark.parametrize("dialect", ["sqlite", "mysql", "postgresql"])
@pytest.mark.parametrize("sql", EVERYWHERE)
def test_what_is_no_plain_statement_is_an_invalid_action(dialect, sql):
    assert refuse(sql, dialect).invalid == "action"


@pytest.mark.parametrize(("dialect", "sql"), [(d, sql) for d, many in BY_DIALECT.items() for sql in many])
def test_each_databases_own_tricks_are_refused(dialect, sql):
    assert refuse(sql, dialect).invalid == "action"


@pytest.mark.parametrize("dialect", ["sqlite", "mysql", "postgresql"])
@pytest.mark.parametrize("sql", ALLOWED)
def test_the_same_words_as_values_are_no_matter(dialect, sql):
    assert refuse(sql, dialect) is None


@pytest.mark.parametrize("dialect", ["sqlite", "mysql", "postgresql"])
def test_what_is_only_malformed_may_be_mended(dialect):
    for sql in ("SELECT 'it", "SELECT \x00 1", "SELEKT 1", "'a'", f"SELECT '{'a' * 20_000}'"):
        assert refuse(sql, dialect).invalid == ""
    assert refuse(" -- nothing\n", dialect).invalid == "format"


@given(
    st.text(alphabet="'\"`$;-/*#\\ \nEUeu&aé€1(.[]", max_size=40), st.sampled_from(["sqlite", "mysql", "postgresql"])
)
def test_any_text_is_read_whole_and_a_semicolon_outside_quotes_never_runs(sql, dialect):
    found = tokens(sql, dialect)
    assert re.sub(r"\s", "", "".join(token.text for token in found)) == re.sub(r"\s", "", sql)
    if refuse(f"SELECT {sql}", dialect) is None:
        rest = [t.text for t in tokens(f"SELECT {sql}", dialect) if t.kind == "sign"]
        assert ";" not in "".join(rest).rstrip(";")
        assert first_word(f"SELECT {sql}", dialect) == "SELECT" or sql[:1].isalnum() or sql[:1] in "_$é€"


@given(st.text(alphabet="'\"`;-/*[] \nab1(", max_size=30))
def test_sqlite_agrees_where_a_statement_ends(sql):
    """What passes as one statement is one to SQLite: it is either run or fails as a whole."""
    if refuse(f"SELECT {sql}", "sqlite") is None:
        assert "one statement" not in complaint(f"SELECT {sql}")


def complaint(sql):
    """Return what SQLite says of a statement."""
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute(sql)
        except (sqlite3.Warning, sqlite3.Error) as exc:
            return str(exc)
    return ""


# -- SQLite's own lock, behind the reading of the text --------------------------------------------------------------


@pytest.fixture
def place(tmp_path):
    place = SQLitePlace()
    place._connection.execute("CREATE TABLE goods (name TEXT, price TEXT)")
    place._connection.execute("INSERT INTO goods VALUES ('lamp', '20')")
    place.begin()
    yield place
    place.close()


@pytest.mark.parametrize(
    "sql",
    [
        "ATTACH ':memory:' AS x",
        "EXPLAIN ATTACH 'x.db' AS x",
        "PRAGMA user_version = 3",
        "PRAGMA journal_mode = OFF",
        "SELECT * FROM pragma_user_version",
        "SELECT load_extension('x')",
        "SELECT fts3_tokenizer('simple')",
        "COMMIT",
        "SAVEPOINT attempt",
        "RELEASE attempt",
        "CREATE TEMP TABLE x AS SELECT 1",
        "CREATE VIRTUAL TABLE x USING fts5(a)",
        "DROP TABLE goods",
        "ALTER TABLE goods RENAME TO other",
        "UPDATE sqlite_master SET sql = ''",
        "DELETE FROM sqlite_schema",
        "VACUUM INTO '/tmp/x.db'",
        "ANALYZE",
    ],
)
def test_the_authorizer_holds_alone(place, sql):
    with pytest.raises(StatementError):
        place.run(sql)
    assert place.run("SELECT * FROM goods").rows == [("lamp", "20")]


def test_a_statement_that_the_session_itself_runs_is_not_lent_to_the_agent(place):
    place.run("SELECT 1")
    with pytest.raises(StatementError, match="not authorized"):
        place.run("SAVEPOINT attempt")


def test_memory_is_bounded(place, monkeypatch):
    with pytest.raises(StatementError, match="too big"):
        place.run("SELECT zeroblob(1000000000)")
    monkeypatch.setattr("cmat_graph.envs.database.places.STATEMENT_SECONDS", 30)
    grow = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 400) "
    with pytest.raises(StatementError, match="full"):
        place.run(f"INSERT INTO goods {grow} SELECT zeroblob(900000), x FROM n")
    assert place.run("SELECT COUNT(*) FROM goods").rows == [(1,)]
    wide = place.run(f"{grow} SELECT zeroblob(100000) FROM n").rows
    assert len(wide) == 11  # a megabyte, and not forty


def test_a_change_behind_with_is_counted_and_undone(place):
    changed = place.run("WITH n(x) AS (SELECT 'rope') INSERT INTO goods SELECT x, '5' FROM n", keep=False)
    assert (changed.rows, changed.changed) == (None, 1)
    assert place.run("SELECT COUNT(*) FROM goods").rows == [(1,)]


def test_explain_tells_and_does_nothing(place):
    assert place.run("EXPLAIN DELETE FROM goods").rows
    assert place.run("SELECT COUNT(*) FROM goods").rows == [(1,)]


# -- through a session ----------------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path):
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE goods (name TEXT, price INTEGER)")
        connection.execute("INSERT INTO goods VALUES ('lamp', 20)")
    ask = {"id": "ask", "description": "What does the lamp cost?", "label": ["20"]}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(ask))
    return tmp_path


@pytest.mark.parametrize("readonly", [True, "true", "yes"])
def test_a_read_only_database_refuses_changes_itself(shop, readonly):
    env = load_env(tasks=shop / "tasks.jsonl", url=f"sqlite:///{shop / 'shop.db'}", readonly=readonly)
    play = env.open(env.tasks()[0])
    for sql in ("UPDATE goods SET price = 1", "WITH n(x) AS (SELECT 1) DELETE FROM goods", "DELETE FROM goods"):
        seen = play.step(operation(sql, "?"))
        assert (seen.error, seen.invalid) == (True, "action")
        assert "readonly" in play.probe(operation(sql, "?")).text
    assert play.step(operation("SELECT price FROM goods", "?")).text == "[(20,)]"


def test_a_task_that_changes_what_is_read_only_is_refused_at_once(shop):
    change = {"id": "set", "type": "UPDATE", "description": "?", "label": ["UPDATE goods SET price = 1"]}
    (shop / "tasks.jsonl").write_text(json.dumps(change))
    with pytest.raises(ConfigurationError, match="'set' is to change the database, and readonly forbids that"):
        load_env(tasks=shop / "tasks.jsonl", url=f"sqlite:///{shop / 'shop.db'}", readonly=True)
    with pytest.raises(ConfigurationError, match="readonly is true or false"):
        load_env(tasks=shop / "tasks.jsonl", url=f"sqlite:///{shop / 'shop.db'}", readonly="perhaps")


def test_another_file_cannot_be_read(shop):
    (shop / "secret.db").write_bytes((shop / "shop.db").read_bytes())
    env = load_env(tasks=shop / "tasks.jsonl", url=f"sqlite:///{shop / 'shop.db'}")
    play = env.open(env.tasks()[0])
    for sql in (f"ATTACH '{shop / 'secret.db'}' AS s", f"SELECT * FROM '{shop / 'secret.db'}'.goods"):
        assert play.step(operation(sql, "?")).error


def test_statements_are_invalid_in_the_two_published_ways(shop):
    env = load_env(tasks=shop / "tasks.jsonl", url=f"sqlite:///{shop / 'shop.db'}")
    play = env.open(env.tasks()[0])
    assert play.step("OK").invalid == "format"
    assert play.step(operation("", "?")).invalid == "format"
    assert play.step(operation("DROP TABLE goods", "?")).invalid == "action"
    assert play.step(operation("SELECT nothing FROM goods", "?")).invalid == ""


@pytest.mark.clock
def test_a_short_statement_does_not_take_long_to_look_at():
    start = time.perf_counter()
    for dialect in ("sqlite", "mysql", "postgresql"):
        for text in ("/*" * 4_000, "'" * 9_999, "(" * 9_000, "$a" * 4_000, "-" * 9_000, "\\'" * 4_000, "$$" * 4_999):
            refuse(f"SELECT {text}"[:10_000], dialect)
    assert time.perf_counter() - start < 5  # a tenth of that where nothing else runs


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT ts_rewrite('a'::tsquery, 'SELECT pg_read_file(''/etc/hostname'')')",
        "SELECT xmax, * FROM goods",
        "SELECT n_tup_upd FROM pg_stat_xact_user_tables",
        "EXPLAIN ANALYZE CREATE TABLE more AS SELECT 1",
        "SELECT 1 AS a INTO more",
        "WITH x AS (SELECT 1) SELECT * INTO more FROM x",
    ],
)
def test_no_detour_of_postgresql_is_open(sql):
    assert refuse(sql, "postgresql") is not None


def test_counters_do_not_tell_what_the_gold_changes():
    """The gold runs on a connection of its own."""
    env = load_env("database", size=64)
    told = set()
    for task in env.tasks():
        if task.category == "UPDATE" and len(told) < 8:
            session = env.open(task)
            seen = session.step(operation("SELECT total_changes()", "?"))
            table = env._records[task.id].table
            told.add(seen.text == f"[({len(table.cells)},)]")
            session.close()
    assert told == {True}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT instr(hex(zeroblob(400000)), hex(zeroblob(200000)) || '1')",
        "SELECT replace(hex(zeroblob(400000)), hex(zeroblob(200000)) || '1', 'x') LIKE 'x'",
        "SELECT hex(zeroblob(200000)) LIKE '%' || hex(zeroblob(24000)) || '1'",
        "SELECT " + ", ".join(["zeroblob(19999999)"] * 50),
    ],
)
def test_no_single_operation_takes_long(place, sql):
    start = time.process_time()
    with suppress(StatementError):
        place.run(sql)
    assert time.process_time() - start < 3


def test_the_bounded_functions_mean_what_sqlites_own_mean(place):
    calls = "instr('abcabc', 'ca'), instr('a', NULL), instr(1234, 34), replace('aXbX', 'X', '-'), replace('a', '', 'b')"
    assert place.run(f"SELECT {calls}").rows == [(3, None, 3, "a-b-", "a")]
