#!/usr/bin/env bash
# Write the certificates and lists of this folder anew, with the openssl command of version 3.0.
# The keys are made for it and thrown away: what is kept can sign nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
id=(-sigopt distid:1234567812345678) # the identity of GB/T 35276 that everybody signs under

cat > ca.cnf <<'END'
[ca]
default_ca = authority
[authority]
database = index.txt
serial = serial
crlnumber = crlnumber
default_md = sm3
new_certs_dir = .
policy = policy
unique_subject = no
x509_extensions = leaf
crl_extensions = list
[policy]
commonName = supplied
[leaf]
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
[list]
authorityKeyIdentifier = keyid:always
END
touch index.txt
echo 1000 > serial
echo 01 > crlnumber

authority() { # name: an SM2 authority of this file name; both are called alike
    openssl ecparam -name SM2 -genkey -noout -out "$1.key"
    openssl req -new -key "$1.key" -sm3 "${id[@]}" -subj "/CN=SM2 test authority" -out "$1.csr"
    openssl ca -batch -notext -config ca.cnf -selfsign -keyfile "$1.key" "${id[@]}" \
        -vfyopt distid:1234567812345678 -extensions root -startdate 20200101000000Z \
        -enddate 21251231235959Z -in "$1.csr" -out "$1.pem"
}
client() { # name
    openssl ecparam -name SM2 -genkey -noout -out "$1.key"
    openssl req -new -key "$1.key" -sm3 "${id[@]}" -subj "/CN=$1" -out "$1.csr"
    openssl ca -batch -notext -config ca.cnf -cert authority.pem -keyfile authority.key "${id[@]}" \
        -vfyopt distid:1234567812345678 -startdate 20200101000000Z -enddate 21251231235959Z \
        -in "$1.csr" -out "$1.pem"
}
list() { # authority, from, until, file
    openssl ca -gencrl -config ca.cnf -cert "$1.pem" -keyfile "$1.key" "${id[@]}" \
        -crl_lastupdate "$2" -crl_nextupdate "$3" -out "$4.pem"
}

authority authority
authority impostor
client good
client revoked
list authority 20200101000000Z 21241231235959Z nobody
openssl ca -config ca.cnf -cert authority.pem -keyfile authority.key -revoke revoked.pem
list authority 20200102000000Z 21251231235959Z current
list authority 20200102000000Z 20200202000000Z stale
list impostor 20200102000000Z 21251231235959Z forged
for each in authority good revoked nobody current stale forged; do cp "$each.pem" "$here/"; done
