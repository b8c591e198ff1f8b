"""The prompt: how a passage, a question and an answer become text, for every stage and for `ask`.

A prompt has three pieces, cut where tokenizers do not merge characters:

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
        name: what prompt.template calls it.
        passage: format of the shared piece, with {context}; it ends with a line break.
        question: format of a question about a passage, with {question}.
        closed_book: format of a question without a passage.
        answer: format of an answer, with {answer}.
        no_answer: the phrase to say if the passage does not answer the question.
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
    # The format of the original recipe; a passage, if there is one, is the first line of what the human says.
    "seed": PromptTemplate(
        name="seed",
        passage="<human>: {context}\n",
        question="{question}\n<assistant>:",
        closed_book="<human>: {question}\n<assistant>:",
    ),
}


def one_line(text: str) -> str:
    """Return a text with single spaces for all white space, line breaks included."""
    return " ".join(text.split())
