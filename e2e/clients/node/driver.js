// kafkajs, driven line by line: one JSON request on the standard input, one JSON reply on the standard output (e2e/src/driver.rs).
'use strict'

// The packages are where e2e/install put them, not beside this file.
const load = require('module').createRequire(process.argv[3])
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, Partitioners, logLevel } = load('kafkajs')
const snappy = load('kafkajs-snappy')
const lz4 = load('lz4-napi')
const zstd = load('@bokuweb/zstd-wasm')

CompressionCodecs[CompressionTypes.Snappy] = snappy
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: (encoder) => lz4.compressFrame(encoder.buffer),
  decompress: (buffer) => lz4.decompressFrame(buffer),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from(zstd.compress(encoder.buffer, 3)),
  decompress: async (buffer) => Buffer.from(zstd.decompress(buffer)),
})

const codecs = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
}

const kafka = new Kafka({
  brokers: process.argv[2].split(','),
  logLevel: logLevel.NOTHING,
  retry: { retries: 3 },
  connectionTimeout: 10000,
})
const admin = kafka.admin()

const decode = (text) => (text == null ? null : Buffer.from(text, 'base64'))
const topics = (topic, partition, offset) => [{ topic, partitions: [{ partition, offset: String(offset) }] }]

function messagesOf(request) {
  // kafkajs has headers as an object: a name that comes twice is an array there, and a null value does not exist.
  const messages = (request.records || []).map((r) => ({
    partition: r.partition == null ? undefined : r.partition,
    key: decode(r.key),
    value: decode(r.value),
    timestamp: r.timestamp == null ? undefined : String(r.timestamp),
    headers: Object.fromEntries((r.headers || []).map(([name, value]) => [name, decode(value)])),
  }))
  const generate = request.generate || { count: 0 }
  for (let i = 0; i < generate.count; i++) {
    messages.push({ key: `k${i % generate.keys}`, value: String(i).padStart(10, '0').padEnd(generate.size, 'x') })
  }
  return messages
}

// A reply to a send names one base offset per partition: the records of a partition follow it in order. Which partition a record went
// to is the partitioner's secret, so it is asked a second time.
async function produce(request) {
  const partitions = []
  const partitioner = () => {
    const choose = Partitioners.DefaultPartitioner()
    return (args) => {
      const p = choose(args)
      partitions.push(p)
      return p
    }
  }
  const producer = kafka.producer({
    createPartitioner: partitioner,
    allowAutoTopicCreation: true,
    idempotent: !!request.idempotent,
    maxInFlightRequests: request.idempotent ? 1 : undefined,
    retry: { retries: request.idempotent ? 10 : 3 },
  })
  await producer.connect()
  try {
    const messages = messagesOf(request)
    const offsets = []
    for (let at = 0; at < messages.length; at += 10000) {
      partitions.length = 0
      const slice = messages.slice(at, at + 10000)
      const acks = { 0: 0, 1: 1, all: -1 }[request.acks || 'all']
      const sent = await producer.send({ topic: request.topic, acks, compression: codecs[request.compression || 'none'], messages: slice })
      const next = new Map((sent || []).map((r) => [r.partition, Number(r.baseOffset)]))
      for (const p of partitions.slice(-slice.length)) {
        const offset = next.get(p)
        offsets.push([p, offset === undefined ? -1 : offset])
        if (offset !== undefined) next.set(p, offset + 1)
      }
    }
    return { offsets }
  } finally {
    await producer.disconnect()
  }
}

// kafkajs consumes in groups only. A fetch without one is the request itself, at the version that kafkajs negotiates.
async function consume(request) {
  const client = await connected(request.topic)
  try {
    const ends = await admin.fetchTopicOffsets(request.topic)
    const start = (o) => (typeof request.from === 'number' ? request.from : Number(request.from === 'end' ? o.high : o.low))
    const position = new Map(ends.map((o) => [o.partition, start(o)]))
    const records = []
    const deadline = Date.now() + (request.timeout_ms || 20000)
    while (records.length < request.count && Date.now() < deadline) {
      const leaders = client.findLeaderForPartitions(request.topic, request.partitions)
      for (const [nodeId, partitions] of Object.entries(leaders)) {
        const broker = await client.findBroker({ nodeId })
        const { responses } = await broker.fetch({
          maxWaitTime: 200,
          minBytes: 1,
          maxBytes: 50 << 20,
          isolationLevel: 0,
          topics: [{ topic: request.topic, partitions: partitions.map((partition) => ({ partition, fetchOffset: String(position.get(partition)), maxBytes: 50 << 20 })) }],
        })
        for (const { partition, messages } of responses.flatMap((r) => r.partitions)) {
          for (const m of messages) {
            if (Number(m.offset) < position.get(partition)) continue
            position.set(partition, Number(m.offset) + 1)
            records.push(recordOf(partition, m))
          }
        }
      }
    }
    return records
  } finally {
    await client.disconnect()
  }
}

// The cluster object inside kafkajs, which its consumers fetch with.
async function connected(topic) {
  const Cluster = load('kafkajs/src/cluster')
  const socketFactory = load('kafkajs/src/network/socketFactory')
  const { createLogger } = load('kafkajs/src/loggers')
  const cluster = new Cluster({
    logger: createLogger({ level: logLevel.NOTHING, logCreator: () => () => {} }),
    socketFactory: socketFactory(),
    brokers: process.argv[2].split(','),
    clientId: 'kafkajs',
    offsets: new Map(),
    connectionTimeout: 10000,
  })
  await cluster.connect()
  await cluster.addTargetTopic(topic)
  return cluster
}

function recordOf(partition, m) {
  const text = (bytes) => (bytes == null ? null : Buffer.from(bytes).toString('base64'))
  const headers = Object.entries(m.headers || {}).flatMap(([name, value]) => [].concat(value).map((v) => [name, text(v)]))
  return { partition, offset: Number(m.offset), timestamp: Number(m.timestamp), key: text(m.key), value: text(m.value), headers }
}

async function endpoint(topic, partition, at) {
  const all = await admin.fetchTopicOffsets(topic)
  const one = all.find((o) => o.partition === partition)
  return Number(at === 'end' ? one.high : one.low)
}

async function describeConfigs(request) {
  const { resources } = await admin.describeConfigs({ resources: [{ type: ConfigResourceTypes[request.type.toUpperCase()], name: request.name }], includeSynonyms: true })
  const entry = (e) => [e.configName, { value: e.configValue, source: e.configSource, synonyms: e.configSynonyms.map((s) => s.configSource) }]
  return Object.fromEntries(resources[0].configEntries.map(entry))
}

// kafkajs calls back with what it consumed: a member keeps it until it is polled, and commits what was.
const members = new Map()

async function join(request) {
  const consumer = kafka.consumer({
    groupId: request.group,
    sessionTimeout: request.session_ms || 6000,
    rebalanceTimeout: 10000,
    heartbeatInterval: 500,
    maxWaitTimeInMs: 200,
    retry: { retries: 20 },
  })
  const member = { consumer, records: [], assigned: [], polled: new Map() }
  const { CRASH, GROUP_JOIN, REBALANCING } = consumer.events
  consumer.on(CRASH, ({ payload }) => console.error('kafkajs:', request.member, payload.restart ? 'restarts after' : 'ended by', payload.error))
  consumer.on(GROUP_JOIN, ({ payload }) => {
    member.assigned = Object.entries(payload.memberAssignment).flatMap(([topic, partitions]) => partitions.map((p) => [topic, p]))
  })
  consumer.on(REBALANCING, () => (member.assigned = []))
  members.set(request.member, member)
  await consumer.connect()
  await consumer.subscribe({ topics: request.topics, fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ topic, partition, message }) => {
      member.records.push({ topic, ...recordOf(partition, message) })
    },
  })
  return {}
}

async function poll(request) {
  const member = members.get(request.member)
  const deadline = Date.now() + (request.timeout_ms || 200)
  do {
    await new Promise((done) => setTimeout(done, 50))
  } while (member.records.length < (request.count || 0) && Date.now() < deadline)
  const records = member.records.splice(0)
  for (const r of records) member.polled.set(`${r.topic}/${r.partition}`, { topic: r.topic, partition: r.partition, offset: String(r.offset + 1) })
  return { records, assigned: member.assigned }
}

async function commit(request) {
  const member = members.get(request.member)
  const offsets = [...member.polled.values()]
  await member.consumer.commitOffsets(offsets).catch(async (error) => {
    // A consumer that restarts of itself belongs to no group meanwhile.
    if (!error.message.includes('not initialized')) throw error
    await new Promise((done) => setTimeout(done, 5000))
    await member.consumer.commitOffsets(offsets)
  })
  member.polled.clear()
  return {}
}

async function leave(request) {
  await members.get(request.member).consumer.disconnect()
  members.delete(request.member)
  return {}
}

const operations = {
  produce,
  join,
  poll,
  commit,
  leave,
  consume,
  async offset_for_time(request) {
    const all = await admin.fetchTopicOffsetsByTimestamp(request.topic, request.timestamp)
    return { offset: Number(all.find((o) => o.partition === request.partition).offset) }
  },
  async create_topic(request) {
    const configEntries = Object.entries(request.configs || {}).map(([name, value]) => ({ name, value }))
    const counts = { numPartitions: request.partitions ?? -1, replicationFactor: request.replicas ?? -1 }
    const created = await admin.createTopics({ waitForLeaders: false, topics: [{ topic: request.topic, ...counts, configEntries }] })
    // kafkajs makes "it exists" a result.
    if (!created) throw Object.assign(new Error('the topic exists'), { code: 36 })
    return {}
  },
  async delete_topic(request) {
    await admin.deleteTopics({ topics: [request.topic] })
    return {}
  },
  list_topics: () => admin.listTopics(),
  async describe_topic(request) {
    const { topics: [topic] } = await admin.fetchTopicMetadata({ topics: [request.topic] })
    const partitions = topic.partitions.map((p) => ({ partition: p.partitionId, leader: p.leader, replicas: p.replicas.length, isr: p.isr.length }))
    return { partitions: partitions.sort((a, b) => a.partition - b.partition) }
  },
  async create_partitions(request) {
    await admin.createPartitions({ topicPartitions: [{ topic: request.topic, count: request.partitions }] })
    return {}
  },
  describe_configs: describeConfigs,
  // kafkajs knows only AlterConfigs, which replaces all that was set.
  async replace_configs(request) {
    const configEntries = Object.entries(request.configs).map(([name, value]) => ({ name, value }))
    await admin.alterConfigs({ validateOnly: false, resources: [{ type: ConfigResourceTypes[request.type.toUpperCase()], name: request.name, configEntries }] })
    return {}
  },
  async delete_records(request) {
    // It deletes only where its metadata already has the topic.
    await endpoint(request.topic, request.partition, 'beginning')
    await admin.deleteTopicRecords({ topic: request.topic, partitions: topics(request.topic, request.partition, request.offset)[0].partitions })
    return { low_watermark: await endpoint(request.topic, request.partition, 'beginning') }
  },
  async list_offsets(request) {
    return { offset: await endpoint(request.topic, request.partition, request.at === 'latest' ? 'end' : 'beginning'), timestamp: -1 }
  },
  async describe_cluster() {
    const { brokers, controller, clusterId } = await admin.describeCluster()
    return { cluster_id: clusterId, controller, nodes: brokers.map((b) => ({ id: b.nodeId, host: b.host, port: b.port })) }
  },
}

async function main() {
  await zstd.init()
  await admin.connect()
  for await (const line of require('readline').createInterface({ input: process.stdin })) {
    const request = JSON.parse(line)
    let reply
    try {
      reply = { ok: await operations[request.op](request) }
    } catch (e) {
      // What retrying gave up on, or what was wrong with the topics of an admin request, is inside.
      let cause = e
      const inner = (c) => c.cause || (c.errors && c.errors[0]) || (c.partitions && c.partitions[0].error)
      while (cause.code === undefined && inner(cause)) cause = inner(cause)
      reply = { error: { code: Number.isInteger(cause.code) ? cause.code : -1, message: String(cause.stack || cause) } }
    }
    process.stdout.write(JSON.stringify(reply) + '\n')
  }
  await admin.disconnect()
}

main()
