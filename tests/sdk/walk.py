"""The official Python SDK against a node: push, pull, lookup, referrers, events, resolve, delete.

    walk.py HOST:PORT RECORD.json...

The SDK of this version sends PushReferrer in the form of an older release (field 2 was a message), which nodes of the
current contract refuse, and it has no DeleteReferrer. Those two calls are made on a channel beside the SDK, with messages
of the current form; everything else is the SDK's own.

Ends with code 0 and one line of JSON when every answer was right; the first wrong one ends it with a sentence.
"""

import json
import logging
import sys

import grpc
from agntcy.dir_sdk.client import Client, Config
from agntcy.dir_sdk.models import core_v1, events_v1, store_v1
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, struct_pb2

PUBLIC_KEY = "agntcy.dir.sign.v1.PublicKey"
SIGNATURE = "agntcy.dir.sign.v1.Signature"


def check(fact, sentence):
    if not fact:
        sys.exit(f"wrong: {sentence}")


def record_of(path):
    with open(path, encoding="utf-8") as file:
        text = json.load(file)
    if "schema_version" not in text:
        return None, None
    record = core_v1.Record()
    json_format.ParseDict(text, record.data)
    return text, record


def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def referrers_of(client, cid, **filters):
    request = store_v1.PullReferrerRequest(record_ref=core_v1.RecordRef(cid=cid), **filters)
    answers = client.pull_referrer([request])
    return [answer.referrer for answer in answers if answer.HasField("referrer")]


def current_messages():
    """Messages of the current form: PushReferrerRequest and its answer, DeleteReferrerRequest and its answer."""
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="walk.proto", package="walk", syntax="proto3", dependency=["google/protobuf/struct.proto"])

    def message(name, *fields):
        made = file.message_type.add(name=name)
        for number, field, of, many in fields:
            one = made.field.add(name=field, number=number,
                                 label=kind.LABEL_REPEATED if many else kind.LABEL_OPTIONAL,
                                 type=of if isinstance(of, int) else kind.TYPE_MESSAGE)
            if isinstance(of, str):
                one.type_name = of
        return made

    text, flag = kind.TYPE_STRING, kind.TYPE_BOOL
    message("Ref", (1, "cid", text, False))
    push = message("Push", (1, "record_ref", ".walk.Ref", False), (2, "type", text, False),
                   (3, "annotations", ".walk.Push.AnnotationsEntry", True), (4, "created_at", text, False),
                   (5, "data", ".google.protobuf.Struct", False))
    entry = push.nested_type.add(name="AnnotationsEntry")
    entry.options.map_entry = True
    for number, name in ((1, "key"), (2, "value")):
        entry.field.add(name=name, number=number, label=kind.LABEL_OPTIONAL, type=text)
    message("Pushed", (1, "success", flag, False), (2, "error_message", text, False), (3, "referrer_ref", ".walk.Ref", False))
    message("Delete", (1, "record", ".walk.Ref", False), (2, "referrer_ref", ".walk.Ref", False))
    message("Deleted", (1, "referrer_refs", ".walk.Ref", True))
    pool = descriptor_pool.DescriptorPool()
    struct = descriptor_pb2.FileDescriptorProto()
    struct_pb2.DESCRIPTOR.CopyToProto(struct)
    pool.Add(struct)
    pool.Add(file)
    return [message_factory.GetMessageClass(pool.FindMessageTypeByName(f"walk.{name}"))
            for name in ("Push", "Pushed", "Delete", "Deleted")]


def current_call(channel, method, answer):
    path = f"/agntcy.dir.store.v1.StoreService/{method}"
    return channel.stream_stream(path, request_serializer=lambda message: message.SerializeToString(),
                                 response_deserializer=answer.FromString)


def walk_referrers(client, channel, cid):
    push, pushed_answer, delete, deleted_answer = current_messages()
    key = push(type=PUBLIC_KEY, annotations={"owner": "walk"}, created_at="2026-01-02T03:04:05Z")
    key.record_ref.cid = cid
    key.data["key"] = "-----BEGIN PUBLIC KEY-----\nwalk\n-----END PUBLIC KEY-----\n"
    signature = push(type=SIGNATURE)
    signature.record_ref.cid = cid
    signature.data["signature"] = "d2Fsaw=="
    pushed = list(current_call(channel, "PushReferrer", pushed_answer)(iter([key, signature, key])))
    check(all(answer.success for answer in pushed), f"a referrer of {cid} was refused: {pushed}")
    check(pushed[0].referrer_ref.cid == pushed[2].referrer_ref.cid, "the same referrer got two CIDs")
    found = referrers_of(client, cid)
    check([one.type for one in found] == [PUBLIC_KEY, SIGNATURE], f"referrers come in push order, once each: {found}")
    check(found[0].data["key"] == key.data["key"], "a referrer came back with other data")
    check(found[0].annotations == {"owner": "walk"}, "a referrer came back with other annotations")
    check(found[0].created_at == "2026-01-02T03:04:05Z" and found[0].record_ref.cid == cid, "a referrer lost its facts")
    check(len(referrers_of(client, cid, referrer_type=SIGNATURE)) == 1, "the type filter does not filter")
    request = delete()
    request.record.cid = cid
    request.referrer_ref.cid = pushed[0].referrer_ref.cid
    deleted = list(current_call(channel, "DeleteReferrer", deleted_answer)(iter([request])))
    check([ref.cid for ref in deleted[0].referrer_refs] == [request.referrer_ref.cid], "the deleted referrer is not named")
    check([one.type for one in referrers_of(client, cid)] == [SIGNATURE], "the wrong referrer is gone")
    older = store_v1.PushReferrerRequest(record_ref=core_v1.RecordRef(cid=cid))
    older.referrer.type = PUBLIC_KEY
    refusal = code_of(lambda: client.push_referrer([older]))
    check(refusal == grpc.StatusCode.INVALID_ARGUMENT, f"the older form of PushReferrer gives {refusal}")
    check(len(referrers_of(client, cid)) == 1, "the older form of PushReferrer stored something")


def main():
    # The refusals below are meant; the SDK would print each with its stack.
    logging.disable(logging.CRITICAL)
    client = Client(Config(server_address=sys.argv[1]))
    channel = grpc.insecure_channel(sys.argv[1])
    walked = 0
    for path in sys.argv[2:]:
        text, record = record_of(path)
        if record is None:
            continue
        events = client.listen(events_v1.ListenRequest())
        events.initial_metadata()
        first = client.push([record, record])
        check(len(first) == 2 and first[0].cid == first[1].cid, f"{path}: a double push gives {first}")
        ref = first[0]
        check(ref.cid.startswith("baearei") and len(ref.cid) == 59, f"{path}: odd CID {ref.cid}")
        pulled = client.pull([ref])
        check(len(pulled) == 1 and pulled[0] == record, f"{path}: the record came back changed")
        check(json_format.MessageToDict(pulled[0].data) == text, f"{path}: the record came back with other JSON")
        meta = client.lookup([ref])[0]
        check(meta.cid == ref.cid and meta.schema_version == text["schema_version"], f"{path}: metadata {meta}")
        check(meta.annotations["name"] == text["name"], f"{path}: metadata without the name")
        named = client.resolve(text["name"], text["version"])
        check(ref.cid in [one.cid for one in named.records], f"{path}: {text['name']} resolves to {named}")
        info = client.get_verification_info(cid=ref.cid)
        check(not info.verified and info.error_message == "no verification found", f"{path}: {info}")
        walk_referrers(client, channel, ref.cid)
        client.delete([ref])
        check(code_of(lambda: client.pull([ref])) == grpc.StatusCode.NOT_FOUND, f"{path}: deleted and still there")
        heard = [next(events).event for _ in range(4)]
        events.cancel()
        names = [events_v1.EventType.Name(event.type) for event in heard]
        wanted = ["EVENT_TYPE_RECORD_PUSHED"] * 2 + ["EVENT_TYPE_RECORD_PULLED", "EVENT_TYPE_RECORD_DELETED"]
        check(sorted(names) == sorted(wanted), f"{path}: events {names}")
        check(all(event.resource_id == ref.cid for event in heard), f"{path}: an event about something else")
        labels = [label for event in heard for label in event.labels if label.startswith("/skills/")]
        check(bool(labels) == bool(text.get("skills")), f"{path}: labels {labels}")
        walked += 1
    check(code_of(lambda: client.pull([core_v1.RecordRef(cid="non-existent-CID")])) == grpc.StatusCode.NOT_FOUND,
          "a CID that is none is found")
    print(json.dumps({"walked": walked}))


main()
