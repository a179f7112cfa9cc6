"""OpenTelemetry: spans of requests to a collector, where one is configured (extra `telemetry`)."""

from __future__ import annotations

from importlib.metadata import version

from fastapi.telemetry import TelemetryConfig

from planner_service.settings import InvalidSetting, Settings, variable


def require_exporter(settings: Settings) -> None:
    """Raise InvalidSetting where spans are wanted and the exporter is not installed."""
    if not settings.otlp_url:
        return
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401 - whether they are there
    except ImportError:
        reason = "needs the extra: pip install 'tightfit[telemetry]'"
        raise InvalidSetting(f"{variable('otlp_url')}={settings.otlp_url} {reason}") from None


def telemetry_of(settings: Settings) -> TelemetryConfig:
    """FastAPI's own instrumentation: off, or with spans to `otlp_url`.

    Raises InvalidSetting where the exporter is not installed.
    """
    require_exporter(settings)
    if not settings.otlp_url:
        return {"tracing": False, "metrics": False, "logs": False}
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": "tightfit", "service.version": version("tightfit")})
    provider = TracerProvider(resource=resource)
    exporter = OTLPSpanExporter(endpoint=f"{settings.otlp_url.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return {"tracing": True, "metrics": False, "logs": False, "tracer_provider": provider}
