"""How a question is put to the model: the one prompt builder that every stage and `ask` use.

A prompt is three pieces, cut where no tokenizer merges across: a passage that questions share, a question, an answer.
"""

from dataclasses import dataclass

from falcon_job.params import Template


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """The text around a passage, a question and an answer.

    Attributes:
        passage: format of the shared piece, with {context}; it ends the line.
        question: format of a question about a passage, with {question}.
        closed_book: format of a question without a passage.
        answer: format of an answer, with {answer}.
        no_answer: the phrase that stands for "the passage does not say".
    """

    name: Template
    passage: str
    question: str
    closed_book: str
    answer: str = " {answer}"
    no_answer: str = "unanswerable"

    def shared_text(self, context: str | None) -> str:
        """Return the piece that all questions of a passage share; empty for closed-book questions."""
        return "" if context is None else self.passage.format(context=context.strip())

    def question_text(self, question: str, *, closed_book: bool) -> str:
        """Return the piece that asks, up to where the answer begins."""
        form = self.closed_book if closed_book else self.question
        return form.format(question=one_line(question))

    def answer_text(self, answer: str | None) -> str:
        """Return the piece to learn, without end-of-text; None: the no-answer phrase."""
        return self.answer.format(answer=self.no_answer if answer is None else one_line(answer))

    def read_answer(self, generated: str) -> str:
        """Return the answer in generated text, "" where it is the no-answer phrase.

        An answer is one line by construction: what an untuned model writes after it is not held against it.
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
    # The original recipe's format, in which a passage, where there is one, is the first line of what the human says.
    "seed": PromptTemplate(
        name="seed",
        passage="<human>: {context}\n",
        question="{question}\n<assistant>:",
        closed_book="<human>: {question}\n<assistant>:",
    ),
}


def one_line(text: str) -> str:
    """Collapse runs of white space, line breaks among them, to single spaces."""
    return " ".join(text.split())
