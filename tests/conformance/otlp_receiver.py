"""A collector made of the published definitions of OTLP (PyPI's opentelemetry-proto): it takes traces and
metrics over HTTP, and prints its port, and then each span and each metric as a line of JSON."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


def say(what):
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def attributes(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def known(message):
    """Fails at a field that the definitions do not have, at any depth."""
    again = type(message)()
    again.ParseFromString(message.SerializeToString())
    again.DiscardUnknownFields()
    assert again == message and again.ByteSize() == message.ByteSize(), "unknown fields"


def spans(body):
    request = ExportTraceServiceRequest.FromString(body)
    known(request)
    for of_resource in request.resource_spans:
        resource = attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            assert of_scope.scope.name == "riposte"
            for span in of_scope.spans:
                assert len(span.trace_id) == 16 and len(span.span_id) == 8
                assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
                yield {
                    "span": span.name,
                    "resource": resource,
                    "trace": span.trace_id.hex(),
                    "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "kind": Span.SpanKind.Name(span.kind),
                    "status": Status.StatusCode.Name(span.status.code),
                    "events": [event.name for event in span.events],
                    "attributes": attributes(span.attributes),
                }


def metrics(body):
    request = ExportMetricsServiceRequest.FromString(body)
    known(request)
    for of_resource in request.resource_metrics:
        for of_scope in of_resource.scope_metrics:
            for metric in of_scope.metrics:
                kind = metric.WhichOneof("data")
                points = getattr(metric, kind).data_points
                assert points and all(0 < point.start_time_unix_nano <= point.time_unix_nano for point in points)
                if kind != "gauge":
                    assert getattr(metric, kind).aggregation_temporality == 2, "cumulative"
                if kind == "sum":
                    assert metric.sum.is_monotonic
                if kind == "histogram":
                    for point in points:
                        assert sum(point.bucket_counts) == point.count
                        assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
                        assert list(point.explicit_bounds) == sorted(set(point.explicit_bounds))
                yield {"metric": metric.name, "kind": kind, "unit": metric.unit, "points": len(points)}


class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        read, answer = {
            "/v1/traces": (spans, ExportTraceServiceResponse()),
            "/v1/metrics": (metrics, ExportMetricsServiceResponse()),
        }[self.path]
        assert self.headers["content-type"] == "application/x-protobuf"
        for what in read(self.rfile.read(int(self.headers["content-length"]))):
            say(what)
        body = answer.SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
say({"port": server.server_port})
server.serve_forever()
