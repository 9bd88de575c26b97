"""Drives create, backup and restore through plain NATS requests in JSON, as any other system may."""

import asyncio
import json
import sys
import tomllib

import nats


async def main(client_file, image, sha256):
    with open(client_file, "rb") as file:
        client = tomllib.load(file)
    denied = []

    async def on_error(error):
        denied.append(str(error))

    inbox = f"_INBOX_{client['person']}".encode()
    nc = await nats.connect(client["url"], nkeys_seed=client["key"], inbox_prefix=inbox, error_cb=on_error)

    async def ask(subject, body, timeout=30):
        answer = await nc.request(f"loam.v1.{subject}", json.dumps(body).encode(), timeout=timeout)
        headers = answer.headers or {}
        return json.loads(answer.data), headers.get("Nats-Service-Error-Code")

    async def finish(service, answer):
        begun, error = answer
        assert error is None, begun
        (operation,) = begun.values()
        for _ in range(600):
            report, error = await ask(f"{service}.get_operation", {"id": operation})
            assert error is None, report
            if report["state"] in ("done", "undone", "stuck"):
                assert report["state"] == "done", report
                return report
            await asyncio.sleep(0.2)
        raise AssertionError(f"{operation} does not end")

    await finish("provisioner", await ask("provisioner.add_seed", {"name": "tiny", "from": image, "sha256": sha256}))
    definition = {
        "name": "web",
        "seed": "tiny",
        "cpu_count": 1,
        "ram_size": 256 << 20,
        "disk_size": 512 << 20,
        "domains": [{"domain": "web.example", "port": 80}],
    }
    await finish("provisioner", await ask("provisioner.create_vm", {"definition": definition}))
    vms, _ = await ask("provisioner.list_vms", {})
    assert [vm["state"] for vm in vms] == ["ready"], vms
    print("created web")

    await finish("backup", await ask("backup.start_backup", {"vm": "web"}))
    backups, _ = await ask("backup.list_backups", {"vm": "web"})
    assert len(backups) == 1, backups
    print("backed up web")

    await finish("backup", await ask("backup.restore_backup_as_vm", {"backup": "web@latest", "as_vm": "web2"}))
    vms, _ = await ask("provisioner.list_vms", {})
    assert sorted(vm["definition"]["name"] for vm in vms) == ["web", "web2"], vms
    print("restored web2")

    refusal, code = await ask("provisioner.create_vm", {"definition": definition})
    assert (refusal, code) == ({"refused": {"name_taken": "web"}}, "409"), (refusal, code)
    failure, code = await ask("provisioner.create_vm", {"definition": 7})
    assert code == "400" and failure["failed"]["kind"] == "malformed", (failure, code)
    misspelt = {**definition, "name": "web3", "domain": []}
    failure, code = await ask("provisioner.create_vm", {"definition": misspelt})
    assert code == "400" and "definition.domain" in failure["failed"]["message"], (failure, code)

    inbox = nc.new_inbox()
    answers = await nc.subscribe(inbox)
    for service in ("provisioner", "backup", "proxy", "scheduler", "upgrade"):
        await nc.publish(f"$SRV.INFO.{service}", b"", reply=inbox)
    found = {}
    while True:
        try:
            info = json.loads((await answers.next_msg(timeout=2)).data)
        except nats.errors.TimeoutError:
            break
        found[info["name"]] = info
    assert {"provisioner", "backup", "proxy", "scheduler", "upgrade"} <= set(found), sorted(found)
    for info in found.values():
        for endpoint in info["endpoints"]:
            for schema in ("request_schema", "reply_schema", "refusal_schema"):
                json.loads(endpoint["metadata"][schema])
    print("every endpoint has its schemas")

    # Words between services and events are not for people.
    await nc.publish("loam.v1.event.provisioner.vm_changed.web", b"{}")
    await nc.publish("$KV.vms.web", b"{}")
    await nc.flush()
    for subject in ("provisioner.open_disks", "supervisor.replace_service"):
        try:
            await ask(subject, {}, timeout=2)
            raise AssertionError(f"{subject} was answered")
        except (nats.errors.NoRespondersError, nats.errors.TimeoutError, asyncio.TimeoutError):
            pass
    assert any("ermissions" in error for error in denied), denied
    print("closed to the rest")
    await nc.close()


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 300))
