"""Reads an edge's statistics: sync_stats.py http://edge.example.test SECRET-FILE"""
import base64, hashlib, hmac, json, os, sys, time, urllib.request
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

url, secret = sys.argv[1].rstrip("/"), open(sys.argv[2], "rb").read().removesuffix(b"\n")

def key(label):
    return HKDF(hashes.SHA256(), 32, None, label).derive(secret)

path, stamp, nonce = "/_sys/sync_stats", str(int(time.time())), os.urandom(16).hex()
signed = "\n".join(["GET", path, hashlib.sha256(b"").hexdigest(), stamp, nonce]).encode()
signature = hmac.new(key(b"adit/1 request signing"), signed, "sha256").hexdigest()
headers = {"X-Adit-Timestamp": stamp, "X-Adit-Nonce": nonce, "X-Adit-Signature": signature}
token = urllib.request.urlopen(urllib.request.Request(url + path, headers=headers)).read()
stats = Fernet(base64.urlsafe_b64encode(key(b"adit/1 stats sealing"))).decrypt(token)
print(json.dumps(json.loads(stats), indent=2))
