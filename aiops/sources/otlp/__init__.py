"""Telemetry that OpenTelemetry pushes: OTLP over HTTP, https://opentelemetry.io/docs/specs/otlp/#otlphttp"""
