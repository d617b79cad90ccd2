"""The same weights without our engine: raw transformers, PEFT, `ChatHuggingFace`, and transformers' own batching."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from langchain_core.messages import HumanMessage
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, ContinuousBatchingConfig, GenerationConfig, pipeline
from transformers.utils import logging as transformers_logging

from cmat_graph.adapters import AdapterCard
from cmat_graph.errors import MissingExtraError


class Lone:
    """One base and its adapters, by the libraries below us."""

    def __init__(self, base: Path, cards: Sequence[AdapterCard]) -> None:
        self.base, self.cards = base, cards
        self.raw = self._load()
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.tuned = PeftModel.from_pretrained(self._load(), cards[0].folder, adapter_name="0")
            for i, card in enumerate(cards[1:], 1):
                self.tuned.load_adapter(card.folder, adapter_name=str(i))
        self.tuned.eval()

    def _load(self) -> Any:
        return AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32).eval()

    @torch.inference_mode()
    def batch(
        self, prompts: Sequence[list[int]], tokens: int, adapters: Sequence[int] | None = None
    ) -> list[list[int]]:
        """Answer one ready-made batch, padded to its longest prompt; adapters by their places among the cards."""
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
        seen = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        model = self.raw if adapters is None else self.tuned
        given = {} if adapters is None else {"adapter_names": [str(i) for i in adapters]}
        out = model.generate(input_ids=ids, attention_mask=seen, max_new_tokens=tokens, do_sample=False, **given)
        return [list(row) for row in out[:, width:].tolist()]

    @torch.inference_mode()
    def scored(self, prompt: list[int], tokens: int, adapter: int) -> tuple[list[int], list[float]]:
        """Answer one prompt alone; also return the logarithm of each token's probability."""
        out = self.tuned.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            adapter_names=[str(adapter)],
            max_new_tokens=tokens,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        drawn = out.sequences[0, len(prompt) :]
        logprobs = torch.stack(out.logits)[:, 0].float().log_softmax(-1)
        return drawn.tolist(), logprobs.gather(1, drawn[:, None])[:, 0].tolist()

    def chat(self, tokens: int, *, tuned: bool = False) -> Any:
        """Build `ChatHuggingFace` over a local pipeline, as LangChain documents it."""
        try:
            from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
        except ImportError as exc:
            # 1.2.3 asks for huggingface-hub below 2, but runs on 2.4 as well.
            fix = "pip install --no-deps langchain-huggingface==1.2.3"
            raise MissingExtraError(f"langchain-huggingface is missing; fix: {fix}") from exc
        with quiet():
            pipe = pipeline(
                "text-generation",
                model=self.tuned if tuned else self.raw,
                tokenizer=self.tokenizer,
                max_new_tokens=tokens,
                do_sample=False,
                return_full_text=False,
            )
        return ChatHuggingFace(llm=HuggingFacePipeline(pipeline=pipe), tokenizer=self.tokenizer)

    def continuous(self, prompts: Sequence[list[int]], tokens: int) -> int:
        """Answer through transformers' continuous batching; return how many tokens came.

        It sizes its memory for a GPU; on a CPU its own choice is ten times slower than this one.
        """
        with quiet():
            out = self.raw.generate_batch(
                inputs=list(prompts),
                generation_config=GenerationConfig(
                    max_new_tokens=tokens, do_sample=False, **self._ends(), pad_token_id=0
                ),
                continuous_batching_config=ContinuousBatchingConfig(
                    num_blocks=16 * len(prompts), page_size=32, max_batch_tokens=512
                ),
                warmup=False,
            )
        return sum(len(reply.generated_tokens) for reply in out.values())

    def _ends(self) -> dict[str, Any]:
        return {"eos_token_id": self.raw.generation_config.eos_token_id}


def invoke(chat: Any, text: str) -> str:
    """Ask `ChatHuggingFace`; its warnings are not ours to print."""
    with quiet():
        return str(chat.invoke([HumanMessage(text)]).content)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what transformers has to say off stderr."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
