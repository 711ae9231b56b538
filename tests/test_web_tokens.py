"""Who decided: the name of the token that was shown, not what the caller says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from test_policy_decide import book as make_book
from test_policy_decide import policy, step
from test_web import serving

from aiops import build, config
from aiops.policy.answers import too_few
from aiops.types import Command
from aiops.web.app import create_app
from aiops.web.server import ListenError, Server

sys.path.insert(0, str(Path(__file__).with_name("browser")))
from web_demo import busy

APPROVE = "/api/actions/act-7f21-2/approve"


def shows(token):
    return {"Authorization": f"Bearer {token}"}


def named(token=None):
    view = busy(token)
    view.tokens = {"anna": "s3cret-a", "ben": "s3cret-b"}
    return view


def test_the_name_of_the_token_is_who_decided():
    """Whatever the caller says of himself; for every kind of change."""
    with serving(named()) as ask:
        assert ask(APPROVE, "POST", {"by": "ben"}, **shows("s3cret-a"))[0] == 202
        assert ask("/api/models/baseline/rollback", "POST", **shows("s3cret-b"))[0] == 202
        assert [(said[0], said[-1]) for said in ask.view.said] == [("approve", "anna"), ("rollback", "ben")]


@pytest.mark.parametrize("given", ["", "Bearer wrong", "Bearer anna", "Bearer s3cret-a2"])
def test_who_shows_none_of_the_tokens_changes_nothing(given):
    """401, and it says which setting is meant."""
    with serving(named()) as ask:
        status, text, _ = ask(APPROVE, "POST", **({"Authorization": given} if given else {}))
        assert status == 401 and ("none of those in this daemon's tokenFiles" if given else "A token is needed") in text
        assert ask.view.said == []


def test_all_who_share_the_token_without_a_name_are_one():
    """Where others have names: else one person could be two by giving two names."""
    for by in ("carl", "dora"):
        with serving(named("shared")) as ask:
            assert ask(APPROVE, "POST", {"by": by}, **shows("shared"))[0] == 202
            assert ask.view.said[0][-1] == "tokenFile"


def test_one_person_is_not_two_whatever_the_policy_asks_for():
    """The second approval with the same token counts for nothing; with another it does."""
    book = make_book(policy(mode="ask", guards={"approvals": 2}))
    [asked] = step(book).actions

    def says(number, *headers_by):
        view = named()
        view.approve = lambda name, by, params=None: heard.append(Command(1.0, "approve", asked.id, by))
        heard = []
        with serving(view) as ask:
            for token, by in headers_by:
                assert ask(APPROVE, "POST", {"by": by}, **shows(token))[0] == 202
        return step(book, 15.0 * number, commands=heard)
    first = says(1, ("s3cret-a", "anna"), ("s3cret-a", "ben"))
    assert [a.decision for a in first.actions] == ["ask"]
    assert first.notes == (f"approve {asked.id} by anna: has approved it already; somebody else has to.",)
    assert [(a.decision, a.state) for a in says(2, ("s3cret-b", "anna")).actions] == [("act", "approved by anna and ben")]


def test_a_name_is_enough_to_listen_beyond_loopback():
    """For the server and for the configuration; without any token both refuse."""
    server = Server(create_app(named()), "0.0.0.0", 0)
    server.stop()
    with pytest.raises(ListenError):
        Server(create_app(busy()), "0.0.0.0", 0)


def write(folder, text, **tokens):
    for name, token in tokens.items():
        (folder / name).write_text(token + "\n")
    (folder / "aiops.yaml").write_text(f"sources: [host: {{}}]\n{text}\n")
    return folder / "aiops.yaml"


def test_the_tokens_are_files_beside_the_configuration(tmp_path):
    """A new one in a file is in force at once."""
    text = "tokenFiles: {anna: a.token, ben: b.token}\nlisten: 0.0.0.0:80"
    path = write(tmp_path, text, **{"a.token": "one", "b.token": "two"})
    tokens = build.tokens(config.load(path, {}))
    assert {name: secret() for name, secret in tokens.items()} == {"anna": "one", "ben": "two"}
    (tmp_path / "a.token").write_text("three-three")
    assert tokens["anna"]() == "three-three"


@pytest.mark.parametrize(("tokens", "text"), [
    ({"a.token": "one", "b.token": "one"}, "tokenFiles: anna and ben have the same token: nobody can tell them apart"),
    ({"a.token": "one"}, r"b\.token: the secret cannot be read: no such file"),
    ({"a.token": "one", "b.token": "t\nw"}, r"b\.token: holds more than one line")])
def test_tokens_that_cannot_be_told_apart_or_read_are_refused(tmp_path, tokens, text):
    """At the start, with the place and never the token."""
    path = write(tmp_path, "tokenFiles: {anna: a.token, ben: b.token}", **tokens)
    with pytest.raises(build.ConfigurationError, match=text):
        build.tokens(config.load(path, {}))


def test_a_policy_that_asks_for_more_people_than_there_are_names_is_told():
    """Nobody could ever approve it, or one person could for two."""
    two = policy(mode="ask", guards={"approvals": 2})
    assert too_few([two], 0) == ["Policy p asks for 2 approvals, and without tokenFiles a name is what the caller says."]
    assert too_few([two], 1) == ["Policy p asks for 2 approvals, and 1 tokens have names."]
    assert too_few([two], 2) == [] == too_few([policy()], 0)
