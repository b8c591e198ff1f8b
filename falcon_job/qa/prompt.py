"""The prompt: how a passage, a question and an answer become text, for every stage and for `ask`.

A prompt has three pieces. They are split where tokenizers do not merge characters:

    Passage: Rain fell on Velmora.        shared by all questions of the passage
    Question: What fell?\\nAnswer:        one question
     Rain                                 its answer, which is learned or generated
"""

from dataclasses import dataclass

from falcon_job.params import Template


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """The text around a passage, a question and an answer.

    Attributes:
        name: its name in `prompt.template`.
        passage: format string of the shared piece, with {context}; it ends with a line break.
        question: format string of a question about a passage, with {question}.
        closed_book: format string of a question without a passage, with {question}.
        answer: format string of an answer, with {answer}.
        no_answer: the phrase for "the passage does not answer the question".
    """

    name: Template
    passage: str
    question: str
    closed_book: str
    answer: str = " {answer}"
    no_answer: str = "unanswerable"

    def shared_text(self, context: str | None) -> str:
        """Return the piece that all questions of a passage share; "" for a closed-book question."""
        return "" if context is None else self.passage.format(context=context.strip())

    def question_text(self, question: str, *, closed_book: bool) -> str:
        """Return the piece of a question, up to where its answer begins."""
        template = self.closed_book if closed_book else self.question
        return template.format(question=one_line(question))

    def answer_text(self, answer: str | None) -> str:
        """Return the piece of an answer, without end-of-text; None stands for the no-answer phrase."""
        return self.answer.format(answer=self.no_answer if answer is None else one_line(answer))

    def read_answer(self, generated: str) -> str:
        """Return the answer in generated text; "" for the no-answer phrase.

        Answers in the training data have one line, so only the first line counts. An untuned model often writes more.
        """
        lines = generated.strip().splitlines()
        answer = lines[0].strip() if lines else ""
        return "" if answer.casefold().rstrip(".") == self.no_answer else answer


TEMPLATES: dict[Template, PromptTemplate] = {
    "squad-v2": PromptTemplate(
        name="squad-v2",
        passage="Passage: {context}\n",
        question="Question: {question}\nAnswer:",
        closed_book="Question: {question}\nAnswer:",
    ),
    # The format of the original recipe. The passage, if there is one, is the first line of the human turn.
    "seed": PromptTemplate(
        name="seed",
        passage="<human>: {context}\n",
        question="{question}\n<assistant>:",
        closed_book="<human>: {question}\n<assistant>:",
    ),
}


def one_line(text: str) -> str:
    """Return `text` on one line, with each run of whitespace replaced by a space."""
    return " ".join(text.split())
