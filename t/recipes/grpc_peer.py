#!/usr/bin/python3
"""A gRPC service and its client, for t/recipes_grpc.t.

    grpc_peer.py serve PORT
    grpc_peer.py call|calls|watch PORT CERTIFICATE METHOD [TOKEN]

The service answers with the metadata that it was sent, as JSON. `call` prints what came of one call, `calls` of the first
of many that fails, `watch` a line for each message of a stream, and then what came of it.
"""

import json
import sys
import threading
from concurrent import futures
from typing import Any, Iterator

import grpc  # type: ignore[import]


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        if method.endswith("/Echo"):
            return grpc.unary_unary_rpc_method_handler(self.echo)
        if method.endswith("/Watch"):
            return grpc.unary_stream_rpc_method_handler(self.watch)
        if method.endswith("/Refuse"):
            return grpc.unary_unary_rpc_method_handler(self.refuse)
        return None

    def echo(self, request: bytes, context: Any) -> bytes:
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        return json.dumps({"metadata": metadata, "size": len(request)}).encode()

    def watch(self, request: bytes, context: Any) -> Iterator[bytes]:
        ended = threading.Event()
        context.add_callback(ended.set)
        while not ended.wait(0.02):
            yield b"tick"

    def refuse(self, request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now")
        return b""


def serve(port: str) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((Service(),))
    if server.add_insecure_port(f"127.0.0.1:{port}") == 0:
        sys.exit(f"port {port} is taken")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


def report(call: Any, answer: bytes = b"") -> None:
    print(json.dumps({
        "code": call.code().value[0],
        "details": call.details(),
        "metadata": {key: str(value) for key, value in [*call.initial_metadata(), *call.trailing_metadata()]},
        "answer": json.loads(answer) if answer else None,
    }), flush=True)


def run(what: str, port: str, certificate: str, method: str, token: str = "") -> None:
    with open(certificate, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    options = [("grpc.ssl_target_name_override", "grpc.referon.com"), ("grpc.default_authority", "grpc.referon.com"),
               ("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
    metadata = [("x-auth-pat-subject", "admin")] + ([("authorization", f"Bearer {token}")] if token else [])
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        try:
            if what != "watch":
                for _ in range(200 if what == "calls" else 1):
                    answer, call = channel.unary_unary(method).with_call(b"x" * 10, metadata=metadata, timeout=120)
                report(call, answer)
            else:
                call = channel.unary_stream(method)(b"", metadata=metadata, timeout=120)
                for message in call:
                    print(json.dumps({"message": message.decode()}), flush=True)
                report(call)
        except grpc.RpcError as error:
            report(error)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        run(*sys.argv[1:])
