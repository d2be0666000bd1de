"""The protoc plugin `grpc_python`: reads a CodeGeneratorRequest, writes a CodeGeneratorResponse.

gRPC ships its Python generator only inside the compiler of grpcio-tools, where buf cannot reach it:
buf runs a plugin that is a program of its own, or a generator that every protoc has, and this is
neither. So this program hands the request's descriptors to that compiler and returns its files.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc


def generate(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    response = CodeGeneratorResponse(
        supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL,
    )
    with tempfile.TemporaryDirectory() as folder:
        descriptors = Path(folder, "descriptors.binpb")
        descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        out = Path(folder, "out")
        out.mkdir()
        exit_code = protoc.main(
            [
                "protoc",
                f"--descriptor_set_in={descriptors}",
                f"--grpc_python_out={request.parameter}:{out}",
                *request.file_to_generate,
            ]
        )
        if exit_code:
            response.error = f"grpc_tools.protoc exited with {exit_code}"
            return response
        for path in sorted(out.rglob("*.py")):
            response.file.add(
                name=path.relative_to(out).as_posix(), content=path.read_text("utf-8")
            )
    return response


if __name__ == "__main__":
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(generate(request).SerializeToString())
