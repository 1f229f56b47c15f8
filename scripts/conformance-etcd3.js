// What a program in Node does with etcd, through the package etcd3: called by conformance.sh with the address of a member.
const { Etcd3 } = require('etcd3');
const assert = require('assert');

async function main() {
  const client = new Etcd3({ hosts: process.argv[2] });
  await client.put('a').value('1');
  assert.strictEqual(await client.get('a').string(), '1');
  assert.deepStrictEqual(await client.getAll().prefix('a').strings(), { a: '1' });

  const watcher = await client.watch().key('w').create();
  const told = new Promise((resolve) => watcher.on('put', (pair) => resolve(pair.value.toString())));
  await client.put('w').value('seen');
  assert.strictEqual(await told, 'seen');
  await watcher.cancel();

  const lease = client.lease(60);
  await lease.put('leased').value('x');
  assert.ok((await lease.keepaliveOnce()).TTL);
  await lease.revoke();
  assert.strictEqual(await client.get('leased').string(), null);

  const held = await client.lock('l').acquire();
  await assert.rejects(client.lock('l').acquire());
  await held.release();
  await (await client.lock('l').acquire()).release();

  const election = client.election('e', 10);
  const campaign = election.campaign('me');
  await new Promise((resolve, reject) => { campaign.on('elected', resolve); campaign.on('error', reject); });
  assert.strictEqual(await election.leader(), 'me');
  await campaign.resign();

  const done = await client.if('a', 'Value', '==', '1').then(client.put('a').value('2')).else(client.get('a')).commit();
  assert.ok(done.succeeded);
  assert.strictEqual((await client.delete().key('a').exec()).deleted, '1');
}

main().then(
  () => { console.log('ok'); process.exit(0); },
  (error) => { console.error(error); process.exit(1); },
);
