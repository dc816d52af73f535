"""Rows of every supported form become the chats, texts and answers that a trainer takes."""

from __future__ import annotations

import pytest

from hf_sched.finetune.data import to_demonstration, to_preference, to_problem
from hf_sched.finetune.data.conversion import FINAL_ANSWER, sft_target
from hf_sched.schedules.validation import ArgumentError
from tests.helpers.rows import load, load_all, write

GSM8K = {"question": "How many?", "answer": "2 * 36 = <<2*36=72>>72\n#### 72"}
CODE = [
    {"question": "Print a sum.", "answer": "std::cin >> a >> b; std::cout << a + b << std::endl;"},
    {"question": "Append with a here-document.", "answer": "cat <<END >> notes.txt\nbuy milk\nEND"},
    {"question": "Shift.", "answer": "a << 2 >> 1; if (x<<1==2>>1) x <<= 3; y >>= 3; 1<<2<=8>>1"},
]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_rows_are_converted_for_each_trainer():
    demonstration, problem = to_demonstration(GSM8K), to_problem(GSM8K)
    assert demonstration["completion"] == [assistant("2 * 36 = 72\n#### 72")]
    assert problem == {"prompt": demonstration["prompt"], "answer": "72"}
    assert problem["prompt"] == [user(f"How many?\n{FINAL_ANSWER}")]
    pair = to_preference({"question": "How many?", "chosen": "#### 72", "rejected": [assistant("#### 1")]})
    assert pair == {"prompt": problem["prompt"], "chosen": [assistant("#### 72")], "rejected": [assistant("#### 1")]}
    assert to_problem({"question": "France?", "answer": "Paris"}) == {"prompt": [user("France?")], "answer": "Paris"}


@pytest.mark.parametrize("mark", ["<<24/2=12>>", "<<.5*100=50>>", "<<10%*200=20>>", "<<5-8=-3>>", "<<2*(3+4)=14>>"])
def test_only_calculator_marks_are_removed(mark):
    assert to_demonstration({"question": "?", "answer": f"a {mark}b"})["completion"] == [assistant("a b")]
    for row in CODE:
        assert to_demonstration(row)["completion"] == [assistant(row["answer"])]


@pytest.mark.parametrize("answer", ["#### 1,234", "so\n#### -3", "#### $4.50", "####5", "so #### 20%"])
def test_gsm8k_is_recognized_by_its_answers(tmp_path, answer):
    path = write(tmp_path / "own.jsonl", [{"question": "How many?", "answer": answer}] * 10)
    loaded = load_all(path, "grpo")
    assert loaded.train[0]["prompt"] == [user(f"How many?\n{FINAL_ANSWER}")]
    assert loaded.train[0]["answer"] == answer.partition("####")[2].strip()
    assert "the answers look like GSM8K's" in loaded.description
    bare = load_all(path, "grpo", instruction="")
    assert bare.train[0] == {"prompt": [user("How many?")], "answer": loaded.train[0]["answer"]}


@pytest.mark.parametrize(
    "answers", [["Paris"], ["42"], ["#### Heading\ntext"], ["#### 42", "Paris"], ["Write #### 7 now."]]
)
def test_other_data_keep_questions_and_answers(tmp_path, answers):
    path = write(tmp_path / "own.jsonl", [{"question": "What?", "answer": answer} for answer in answers])
    loaded = load_all(path, "grpo")
    assert list(loaded.train) == [{"prompt": [user("What?")], "answer": answer} for answer in answers]
    assert "GSM8K" not in loaded.description and loaded.instruction is None


def test_answer_follows_the_mark_that_the_instruction_names(tmp_path):
    path = write(tmp_path / "own.jsonl", [{"question": "Half?", "answer": "So:\n#### \\frac12"}])
    row = load(path, "grpo", instruction="End with #### and the answer.")[0]
    assert row == {"prompt": [user("Half?\nEnd with #### and the answer.")], "answer": "\\frac12"}


def test_instruction_that_is_not_used_is_named(tmp_path):
    path = write(tmp_path / "own.jsonl", [{"messages": [user("hi"), assistant("hello")]}])
    assert "`instruction` is not used, because" in load_all(path, instruction="Be brief.").description


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("columns", [None, {"messages": "conversations"}])
def test_sharegpt_becomes_messages(tmp_path, columns, streaming):
    turns = [("system", "Be brief."), ("human", "1 + 1?"), ("gpt", "2"), ("human", "2 + 2?"), ("gpt", "4")]
    rows = [{"id": "a", "conversations": [{"from": role, "value": text} for role, text in turns]}] * 3
    path = write(tmp_path / "own.jsonl", rows)
    chat = [{"role": "system", "content": "Be brief."}, user("1 + 1?"), assistant("2"), user("2 + 2?"), assistant("4")]
    assert list(load(path, columns=columns, streaming=streaming)) == [{"messages": chat}] * 3


def test_role_names_of_other_tools_are_translated(tmp_path):
    chat = [{"role": "human", "content": "hi"}, {"role": "gpt", "content": "hello"}]
    assert load(write(tmp_path / "a.jsonl", [{"messages": chat}]))[0] == {"messages": [user("hi"), assistant("hello")]}
    chat = [{"role": "Human", "content": "hi"}, {"role": "Assistant", "content": "hello"}]
    assert load(write(tmp_path / "d.jsonl", [{"messages": chat}]))[0] == {"messages": [user("hi"), assistant("hello")]}
    turns = [("human", "Time?"), ("function_call", "clock()"), ("observation", "12:00"), ("gpt", "Noon.")]
    row = {"conversations": [{"from": role, "value": text} for role, text in turns], "system": "Use the clock."}
    (messages,) = load(write(tmp_path / "b.jsonl", [row]))["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool", "assistant"]
    row = {"conversations": [{"from": "narrator", "value": "Once"}, {"from": "gpt", "value": "hello"}]}
    with pytest.raises(ArgumentError, match=r"must have the roles system, .* has the message .*narrator.* line 1\)"):
        load(write(tmp_path / "c.jsonl", [row]))


@pytest.mark.parametrize("columns", [None, {"question": "instruction", "answer": "output"}])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_alpaca_rows_use_their_input(tmp_path, columns, suffix):
    rows = [
        {"instruction": "Sort.", "input": "31", "output": "013"},
        {"instruction": "Greet.", "input": "", "output": "Hi"},
    ]
    path = write(tmp_path / f"own{suffix}", rows)
    loaded = load_all(path, columns=columns)
    assert [row["prompt"] for row in loaded.train] == [[user("Sort.\n\n31")], [user("Greet.")]]
    assert loaded.train[0]["completion"] == [assistant("013")] and "not used" not in loaded.description
    assert load(path, "grpo", columns=columns)[0]["answer"] == "013"


def test_alpaca_preferences_keep_their_question(tmp_path):
    row = {"instruction": "Sort.", "input": "31", "chosen": "13", "rejected": "31"}
    pair = load(write(tmp_path / "own.jsonl", [row]), "dpo")[0]
    assert pair == {"prompt": [user("Sort.\n\n31")], "chosen": [assistant("13")], "rejected": [assistant("31")]}


def test_messages_are_trained_on_rather_than_a_prompt_beside_them(tmp_path):
    chat = [user("hi"), assistant("hello")]
    rows = [{"prompt": "hi", "prompt_id": str(number), "messages": chat} for number in range(3)]
    loaded = load_all(write(tmp_path / "own.jsonl", rows))
    assert list(loaded.train) == [{"messages": chat}] * 3
    assert loaded.description.endswith("(train): `messages`; not used: `prompt`, `prompt_id`")


def test_columns_that_the_user_names_decide_what_is_trained_on(tmp_path):
    row = {"text": "t", "messages": [user("hi"), assistant("hello")], "problem": "1 + 1?", "label": "2"}
    path = write(tmp_path / "own.jsonl", [row])
    trained = load(path, columns={"question": "problem", "answer": "label"})[0]
    assert trained == {"prompt": [user("1 + 1?")], "completion": [assistant("2")]}


def test_text_prompt_beside_chats_is_no_mixture(tmp_path):
    chats = {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]}
    assert load(write(tmp_path / "a.jsonl", [{"prompt": "q", **chats}]), "dpo")[0] == chats
    answers = {"chosen": [assistant("a")], "rejected": [assistant("b")]}
    pair = {"prompt": [user("q")], **answers}
    assert load(write(tmp_path / "b.jsonl", [{"prompt": "q", **answers}]), "dpo")[0] == pair
    assert (
        load(write(tmp_path / "c.jsonl", [{"prompt": [user("q")], "chosen": "a", "rejected": "b"}]), "dpo")[0] == pair
    )


@pytest.mark.parametrize("column", ["messages", "completion", "chosen", "conversations"])
def test_chat_that_does_not_end_with_the_assistant_is_named_by_line(tmp_path, column):
    good, bad = [user("hi"), assistant("hello")], [user("hi"), assistant("hello"), user("bye")]
    more = {"completion": {"prompt": [user("hi")]}, "chosen": {"rejected": good}}.get(column, {})
    path = write(tmp_path / "own.jsonl", [{column: good, **more}, {column: bad, **more}])
    name = "messages" if column == "conversations" else column
    message = rf"`{name}` must end with a turn of the assistant, but ends with one of 'user' \(.*own\.jsonl, line 2\)"
    with pytest.raises(ArgumentError, match=message):
        load(path, "dpo" if column == "chosen" else "sft")


def test_system_prompt_begins_every_chat_without_its_own(tmp_path):
    system, own = {"role": "system", "content": "Be brief."}, {"role": "system", "content": "Mine."}
    chat = [user("hi"), assistant("hello")]
    path = write(tmp_path / "chat.jsonl", [{"messages": chat}, {"messages": [own, *chat]}])
    assert [row["messages"] for row in load(path, system_prompt="Be brief.")] == [[system, *chat], [own, *chat]]
    path = write(tmp_path / "own.jsonl", [{"question": "1 + 1?", "answer": "2", "chosen": "2", "rejected": "3"}])
    for kind in ("sft", "grpo", "dpo"):
        assert load(path, kind, system_prompt="Be brief.")[0]["prompt"] == [system, user("1 + 1?")]
    pair = {"chosen": chat, "rejected": chat}
    path = write(tmp_path / "pair.jsonl", [pair])
    assert load(path, "dpo", system_prompt="Be brief.")[0] == {name: [system, *chat] for name in pair}
    for kind, row in (("sft", {"text": "t"}), ("grpo", {"prompt": "t"})):
        with pytest.raises(ArgumentError, match=r"`system_prompt` needs chats, but .* is text; map the prompt"):
            load(write(tmp_path / f"{kind}.jsonl", [row]), kind, system_prompt="Be brief.")


def test_last_turn_of_messages_becomes_the_completion(tmp_path):
    chat = [user("hi"), assistant("hello"), user("bye"), assistant("ciao")]
    row = load(write(tmp_path / "own.jsonl", [{"messages": chat}]), target=sft_target(is_last_turn_only=True))[0]
    assert row == {"prompt": chat[:3], "completion": chat[3:]}


def test_other_columns_reach_rewards_and_nothing_else(tmp_path):
    path = write(tmp_path / "own.jsonl", [{"question": "1 + 1", "answer": "#### 2", "difficulty": 3}] * 2)
    problems = load_all(path, "grpo")
    assert problems.train[0] == {**to_problem({"question": "1 + 1", "answer": "#### 2"}), "difficulty": 3}
    assert "for the rewards: `difficulty`" in problems.description
    assert sorted(load(path).column_names) == ["completion", "prompt"]
