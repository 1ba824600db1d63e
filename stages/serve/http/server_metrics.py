"""What Prometheus may read at /metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from stages.serve.requests import FALLBACKS, ONE_PASS, REASONING, RankResult

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class ServerMetrics:
    """Of one server; its own registry, so that several in a process do not share their counts. A fallback is never counted as a rerank."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("gr2_requests", "requests by path and status", ["path", "status"], registry=self.registry)
        self.seconds = Histogram("gr2_request_seconds", "time of a request", ["path"], buckets=SECONDS, registry=self.registry)
        self.reranked = Counter("gr2_reranked", "requests answered with a new order", registry=self.registry)
        self.fallbacks = Counter("gr2_fallbacks", "requests answered with the incoming order", ["reason"], registry=self.registry)
        self.invalid = Counter("gr2_invalid_answers", "answers that are no permutation", ["kind"], registry=self.registry)
        self.tokens = Counter("gr2_generated_tokens", "tokens that the model wrote", registry=self.registry)
        self.waiting = Gauge("gr2_waiting_requests", "requests in the queue", registry=self.registry)
        self.batches = Histogram("gr2_batch_requests", "requests ranked together", buckets=(1, 2, 4, 8, 16, 32, 64), registry=self.registry)
        self.ways = Counter("gr2_ranked", "requests that the model ranked, by the way it was asked", ["way"], registry=self.registry)
        self.restarts = Counter("gr2_engine_restarts", "times that the engine's process was started again", registry=self.registry)
        self.swaps = Counter("gr2_model_swaps", "other models asked for, by what came of it", ["outcome"], registry=self.registry)
        for way in (REASONING, ONE_PASS):
            self.ways.labels(way)
        for reason in FALLBACKS:  # a rate can be had from the first one on
            self.fallbacks.labels(reason)

    def count(self, result: RankResult) -> None:
        self.tokens.inc(result.tokens)
        if result.fault:
            self.invalid.labels(result.fault).inc()
        if result.fallback:
            self.fallbacks.labels(result.fallback).inc()
        else:
            self.reranked.inc()
            if result.way:
                self.ways.labels(result.way).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)
