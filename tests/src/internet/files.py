# Files of a directory over TLS: address, port, directory, directory of the keys.
import functools, http.server, ssl, sys

host, port, files, keys = sys.argv[1:]


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def guess_type(self, path):
        known = super().guess_type(path)
        return "application/json" if path.rsplit("/", 1)[-1].find(".") < 0 else known

    def log_message(self, *arguments):
        pass


handler = functools.partial(Handler, directory=files)
server = http.server.ThreadingHTTPServer((host, int(port)), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(keys + "/server.pem", keys + "/server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
