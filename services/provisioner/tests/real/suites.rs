//! The suites of the ports on the real adapters.

use contract::provisioner::VmDefinition;
use contract::{ByteCount, OperationId};
use operation::new_id;
use provisioner::ports::Guest;
use provisioner::vm_spec::vm_spec_of;
use provisioner_domain::VmRecord;
use provisioner_domain::nocloud::documents;

use crate::realm::{BOOT, Realm, virsh};
use crate::support::{definition, suites};

/// A VM of the tiny guest with its files, as a creation would write them.
async fn files(realm: &Realm, definition: VmDefinition) -> (VmRecord, OperationId) {
    realm.add_seed().await;
    let state = &realm.state;
    let by = new_id();
    let created = state.registry.create(definition, by.clone()).await;
    let record = created.expect("a record");
    let spec = vm_spec_of(&record, &state.realm, &by, state.disks.as_ref());
    state.disks.create_folder(record.name()).await.expect("a folder");
    let base = spec.disks[0].base.as_ref().expect("a seed").path.clone();
    let sha256 = base.file_stem().expect("a name").to_string_lossy().into_owned();
    let (path, size) = (&spec.disks[0].image.path, record.definition.disk_size);
    state.disks.clone_seed(&sha256, path, size).await.expect("cloned");
    let texts = documents(&record, state.shell.authorized_key());
    state.disks.write_nocloud(&spec.nocloud_volume, &texts).await.expect("written");
    (record, by)
}

#[actix::test]
async fn libvirt_passes_the_suite_of_its_port() {
    let Some(realm) = Realm::enter().await else { return };
    let mut wanted = definition("suite");
    wanted.disk_size = ByteCount::mib(512);
    let (record, by) = files(&realm, wanted).await;
    let state = &realm.state;
    let spec = vm_spec_of(&record, &state.realm, &by, state.disks.as_ref());
    let exports = state.disks.create_export_folder(&by).await.expect("a folder");
    suites::hypervisor(state.hypervisor.as_ref(), &spec, &exports, BOOT).await;
    let snapshot = async || virsh(&["snapshot-create-as", spec.uuid.as_str(), "ext", "--disk-only"]);
    suites::changed_disk(state.hypervisor.as_ref(), &spec, snapshot).await;
}

#[actix::test]
async fn ssh_passes_the_suite_of_its_port() {
    let Some(realm) = Realm::enter().await else { return };
    let mut wanted = definition("shell");
    wanted.disk_size = ByteCount::mib(512);
    let (record, by) = files(&realm, wanted).await;
    let state = &realm.state;
    let spec = vm_spec_of(&record, &state.realm, &by, state.disks.as_ref());
    let hypervisor = &state.hypervisor;
    hypervisor.define(&spec).await.expect("defined");
    hypervisor.start(&spec.uuid).await.expect("started");
    let address = testkit::eventually_some("it has an address", BOOT, async || {
        hypervisor.address(&spec.uuid, &spec.mac).await.expect("an answer")
    })
    .await;
    let guest = Guest { address, uuid: spec.uuid.clone(), host_key: None };
    testkit::eventually_some("SSH answers", BOOT, async || state.shell.reach(&guest).await.ok()).await;
    suites::guest_shell(state.shell.as_ref(), &guest).await;
    hypervisor.destroy(&spec.uuid).await.expect("destroyed");
    hypervisor.undefine(&spec.uuid).await.expect("undefined");
}
