"""English names and places in free text by Microsoft Presidio, where it and a spaCy model are installed.

Nothing is ever downloaded: Presidio would fetch a missing model, so a model is looked for before it is loaded, and of
its recognisers only the one of the spaCy model runs; all that has a form is found by our own.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Iterator

from medtune.privacy.identifiers import Finder
from medtune.privacy.place_names import NOT_TOWNS
from medtune.privacy.spans import Span

MODELS = ("en_core_web_trf", "en_core_web_lg", "en_core_web_md", "en_core_web_sm")
"""English spaCy models, best first."""
MOST_CHARS = 100_000  # at once; spaCy refuses a million
KINDS_OF = {"PERSON": "name", "LOCATION": "address"}
CAPITALISED = re.compile("[A-Z][a-z]")


def installed_model() -> str | None:
    """Name of the best English spaCy model that is installed beside Presidio; None without either."""
    if importlib.util.find_spec("presidio_analyzer") is None:
        return None
    return next((name for name in MODELS if importlib.util.find_spec(name)), None)


def presidio_finder(model: str) -> Finder:
    """A finder for `medtune.privacy.identifiers.find`: people, and places below a state.

    Args:
        model: an installed spaCy model, or its folder.
    """
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NlpEngineProvider
    from presidio_analyzer.predefined_recognizers import SpacyRecognizer

    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    settings = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": model}]}
    engine = NlpEngineProvider(nlp_configuration=settings).create_engine()
    registry = RecognizerRegistry(recognizers=[SpacyRecognizer(supported_entities=list(KINDS_OF))])
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])

    def finder(text: str) -> Iterator[Span]:
        for start in range(0, len(text), MOST_CHARS):
            piece = text[start : start + MOST_CHARS]
            if not CAPITALISED.search(piece):
                continue
            for result in analyzer.analyze(piece, language="en", entities=list(KINDS_OF)):
                found = piece[result.start : result.end]
                if found.isascii() and found.lower() not in NOT_TOWNS:
                    yield Span(KINDS_OF[result.entity_type], start + result.start, start + result.end)

    return finder
